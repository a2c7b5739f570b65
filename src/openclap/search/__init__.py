"""Search: an index in a folder (`index`), brought up to date with folders of sound (`scan`).

Embedding comes in as a function, so nothing here imports a model:

    index = Index.open_or_create("~/.cache/openclap/index", identity)
    report = add(index, ["Sounds"], embed, describe)
    hits = index.search(query_D, k=10)
"""

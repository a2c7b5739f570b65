"""Finding sounds: an index folder (`index`), kept up to date with folders of sound (`scan`).

Vectors come in from a callable, so nothing here imports torch:

    index = Index.open_or_create("~/.cache/openclap/index", identity)
    report = add(index, ["Sounds"], embed, describe)
    hits = index.search(query_D, k=10)
"""

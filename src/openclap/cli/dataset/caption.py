"""`openclap dataset caption`: let a model write captions from tags."""

from __future__ import annotations

from openclap.cli.console import note, print_json, print_table, progress


def caption(
    out: str,
    *,
    maker: str = "bundled",
    revision: str | None = None,
    device: str | None = None,
    part: str = "1/1",
    json: bool = False,
) -> None:
    """Let a model write one more caption for each clip, from its tags (keyword-to-caption).

    Words such as "man" and "woman" become "person". Clips under two seconds or without tags get no such caption. After
    a stop, the same command resumes.

    Parameters
    ----------
    out
        A folder in which every part of `fetch` is done. The next step is `pack`.
    maker
        "bundled", a small model that is part of openclap; a sequence-to-sequence model's folder or USER/NAME on the
        hub, such as mrm8488/t5-base-finetuned-common_gen, which LAION used; or "endpoint", a server with OpenAI's chat
        protocol, named by OPENCLAP_CHAT_URL, OPENCLAP_CHAT_MODEL and OPENCLAP_CHAT_KEY.
    revision
        The branch, tag or commit of a model on the hub.
    device
        The device that runs the model: cpu, cuda, … Default: a GPU if there is one.
    part
        The part of the work for this job: 3/100 is the third of 100 jobs, which may run in parallel.
    json
        Print one JSON object instead of a table.
    """
    from dataclasses import asdict

    from openclap.data.captioning import caption as write_captions
    from openclap.data.captioning import caption_maker
    from openclap.data.layout import identity
    from openclap.data.parallel import Share
    from openclap.storage import place_of

    folder, share = place_of(out), Share.parse(part)
    total = identity(folder)["records"]
    with progress("Captioning") as advance:
        counts = write_captions(
            folder,
            caption_maker(maker, revision, device),
            share,
            progress=lambda counts: advance(counts.done, total // share.of),
        )
    numbers = asdict(counts)
    if json:
        print_json(numbers)
    else:
        print_table(
            ["captions", "clips"],
            [[name.replace("_", " "), f"{count:,}"] for name, count in numbers.items()],
            right=[1],
        )
    note(f"Part {part} is done. When all are: openclap dataset pack {out}")

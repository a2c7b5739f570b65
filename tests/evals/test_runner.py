from __future__ import annotations


def words(table: Results) -> list[tuple[str, ...]]:
    """The table without how long it took."""
    return [row[:-1] for row in table_of(table)]


def test_paper_suite_runs_every_task(paper: Results) -> None:
    assert paper.skipped == {} and paper.lost == ()
    assert {row.task for row in paper.rows} == set(TASKS)
    value = {(row.task, row.metric): row for row in paper.rows if row.model == "tiny"}
    assert value["Clotho", "text_to_audio_R@1"].published[0].value == 17.2
    assert value["ESC-50", "accuracy"].published[0].value == 89.1
    assert value["FSD50K, linear probe", "mAP"].published[0].value == 64.9
    assert "5 folds averaged" in value["ESC-50", "accuracy"].protocol
    assert "This is a {} song." in value["GTZAN", "accuracy"].protocol
    assert all("Windows of 0.50 s" in row.protocol for row in paper.rows)
    for row in paper.rows:
        assert row.estimate.low <= row.estimate.value <= row.estimate.high and len(row.data_hash) == 64


def test_retrieval_figures_equal_the_bare_metrics(paper: Results, tiny_model: Path, sets: Path) -> None:
    model, clips = openclap.load(tiny_model), clips_of_task(TASKS["Clotho"], sets).test.clips
    audio = model.embed_audio([clip.path for clip in clips])
    text = model.embed_text([caption for clip in clips for caption in clip.captions])
    ranks = rank_retrieval(audio.astype(np.float64) @ text.T, np.repeat(np.arange(len(clips)), 5), tie=TIE)
    wanted = {name: measure.value for name, measure in retrieval_measures(ranks).items()}
    ours = {row.metric: row.estimate.value for row in paper.rows if (row.model, row.task) == ("tiny", "Clotho")}
    assert ours == pytest.approx(wanted | {name: ours[name] for name in ours if name.endswith("MRR")})


def test_json_markdown_and_page_agree(paper: Results, tmp_path: Path) -> None:
    record = json.loads(paper.to_json())
    assert len(record["figures"]) == len(paper.rows) and record["figures"][0]["published"][0]["value"] == 0.362
    by_task = {each["task"]: each["classes"] for each in record["classes"] if each["model"] == "tiny"}
    assert [row["label"] for row in by_task["FSD50K"]] == ["Animal", "Bell", "Dog", "Rain", "Wolf"]
    assert sum(row["clips"] for row in by_task["ESC-50"]) == 20 and by_task["ESC-50"][0]["recall"] <= 1
    markdown = paper.to_markdown()
    assert "| tiny | Clotho | text→audio R@1 |" in markdown and "VAST" in markdown and "## Models in pairs" in markdown
    assert any("MTEB's board" in line for line in published_lines(paper))
    assert "-0.0" not in {cell for row in [*table_of(paper), *comparison_table(paper)] for cell in row}
    page = paper.write_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The hardest for tiny" in page and page.count("<audio") > 5 and "Calibration error" in page
    assert "<script" not in page and len(page) < 6_000_000


def test_a_missing_data_set_is_skipped_with_its_source(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    table = run_suite("paper", [*PAPER[:2], TASKS["GTZAN"]], [cached(tiny_model, tmp_path)], tmp_path / "none")
    assert not table.rows and "github.com/cdjkim/audiocaps" in table.skipped["AudioCaps"]
    assert str(tmp_path / "none" / "Clotho") in table.skipped["Clotho"]
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "GTZAN").symlink_to(sets / "gtzan")
    table = run_suite("paper", [PAPER[0], TASKS["GTZAN"]], [cached(tiny_model, tmp_path)], tmp_path / "some")
    assert {row.task for row in table.rows} == {"GTZAN"} and set(table.skipped) == {"AudioCaps"}


def test_unreadable_clips_are_listed_and_the_rest_is_measured(tiny_model: Path, tmp_path: Path) -> None:
    root = tmp_path / "sets" / "esc50"
    miniatures.esc50(root, folds=4)
    (root / "audio" / "1-1000-A-0.wav").write_bytes(b"no sound")
    (root / "audio" / "2-2001-A-1.wav").unlink()
    table = root / "meta" / "esc50.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[-1], "4-9-A-9.wav,4,9,,False,9,A"]) + "\n")
    miniatures.put(root / "audio" / "4-9-A-9.wav", "dog", 9)
    result = run_suite("one", [TASKS["ESC-50"]], [cached(tiny_model, tmp_path)], tmp_path / "sets")
    assert {clip for _, clip, _ in result.lost} == {"1-1000-A-0.wav", "2-2001-A-1.wav"}
    notes = " ".join(sentence for _, sentence in result.notes)
    assert "2 clips could not be heard" in notes and "1 clips have the id of an earlier one" in notes
    assert "Only 4 of 5 folds are there" in notes and "1 clips have no label" in notes
    assert "some clips missing" in result.rows[0].protocol and result.rows[0].n == 14


def test_pairs_of_models(paper: Results) -> None:
    found = {(each.task, each.metric): each.difference for each in paper.comparisons}
    ours, theirs = (paper.outputs[name, "Clotho"] for name in ("tiny", "other"))
    metric = "text_to_audio_R@1"
    gap = theirs.measures[metric].value - ours.measures[metric].value  # the change from tiny to other
    assert found["Clotho", metric].estimate.value == pytest.approx(gap) and 0 < found["Clotho", metric].p <= 1
    same = paired_difference(ours.measures[metric], ours.measures[metric], ours.clips.groups)
    assert (same.estimate.low, same.estimate.high, same.p) == (0.0, 0.0, 1.0)
    with pytest.raises(DataError, match="not asked about the same clips"):
        paired_difference(ours.measures[metric], ours.measures["audio_to_text_R@1"], ours.clips.groups)


def test_an_impossible_task_is_skipped_before_embedding(tiny_model: Path, sets: Path, tmp_path: Path) -> None:
    miniatures.esc50(tmp_path / "sets" / "one fold", folds=1)
    deaf = cached(tiny_model, tmp_path)
    deaf.embedder = Deaf(deaf.embedder)
    tasks = [
        Task(name="no captions", kind="retrieval", source="esc50", folders=(str(sets / "esc50"),)),
        Task(name="no labels", kind="zero_shot", source="clotho", folders=(str(sets / "clotho"),)),
        Task(name="no tags", kind="tagging", source="esc50", folders=(str(sets / "esc50"),)),
        Task(name="no split", kind="zero_shot", source="clotho", folders=(str(sets / "clotho"),), split="later"),
        Task(name="many folds", kind="zero_shot", source="esc50", folders=(str(sets / "esc50"),), folds=3),
        Task(name="one fold", kind="probe", source="esc50", folders=("one fold",), folds=5),
        Task(name="few folds", kind="few_shot", source="esc50", folders=("one fold",), folds=5),
    ]
    table = run_suite("nothing", tasks, [deaf], tmp_path / "sets")
    assert "no clip has a caption" in table.skipped["no captions"]
    assert "no clip has a label" in table.skipped["no labels"]
    assert "no clip has a tag" in table.skipped["no tags"]
    assert "no clip is in its split 'later'. Found: test, train, valid" in table.skipped["no split"]
    assert "expected 3 folds, and 5 are there: esc50:1, esc50:2" in table.skipped["many folds"]
    assert all("esc50:1 is the only fold of 5" in table.skipped[name] for name in ("one fold", "few folds"))
    one = Task(name="one class", kind="zero_shot", source="classes", folders=("gtzan/genres/dog",))
    table = run_suite("nothing", [one], [cached(tiny_model, tmp_path)], sets)
    assert "naming needs two or more" in table.skipped["one class"]


def test_sounds_are_embedded_once_per_model(
    embedder: BandEmbedder, test_clips: EvalClips, train_clips: EvalClips
) -> None:
    embedder.calls.clear()
    evaluate(embedder, test_clips, train_clips)
    assert sum(embedder.calls) == len(test_clips) + len(train_clips)


def test_progress_is_reported(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(embedder, test_clips, progress=lambda *what: told.append(what))
    assert told[-1] == ("Embedding test", 60, 60)


@pytest.mark.parametrize(("vectors", "says"), [(np.zeros((2, 3)), "expected"), (np.full((60, 3), np.nan), "NaN")])
def test_unusable_embeddings_are_refused(test_clips: EvalClips, vectors: np.ndarray, says: str) -> None:
    class Broken(BandEmbedder):
        def embed_audio(self, sounds: list[object], batch_size: int = 16) -> np.ndarray:
            return vectors

    with pytest.raises(OpenClapError, match=says):
        embed_clips(Broken(), test_clips)


def test_quick_suite_has_every_figure(evaluation: Evaluation) -> None:
    counts = {task: sum(f.task == task for f in evaluation.figures) for task in ("text_to_audio", "zero_shot")}
    assert counts == {"text_to_audio": 6, "zero_shot": 3} and len(evaluation.figures) == 18
    for figure in evaluation.figures:
        assert figure.estimate.low <= figure.estimate.value <= figure.estimate.high
        assert figure.chance.low <= figure.chance.value <= figure.chance.high
        assert figure.untrained is not None and figure.n in (60, 120)
    accuracy, before = evaluation.figure("zero_shot", "accuracy"), evaluation.figure("text_to_audio", "R@10")
    assert accuracy is not None and accuracy.above_chance == "yes" and accuracy.estimate.value > 0.8
    assert before is not None and before.untrained is not None
    assert before.untrained.low < before.chance.high < before.estimate.low
    assert (evaluation.clips, evaluation.captions, evaluation.groups) == (60, 120, 30)
    assert evaluation.protocol["Clips"] == BandEmbedder.clip_policy


def test_the_same_seed_gives_the_same_json(
    embedder: BandEmbedder, train_clips: EvalClips, test_clips: EvalClips, evaluation: Evaluation
) -> None:
    again = evaluate(embedder, test_clips, train_clips, untrained=BandEmbedder())
    assert replace(again, seconds=0.0).to_json() == replace(evaluation, seconds=0.0).to_json()
    record = json.loads(evaluation.to_json())
    assert record["data"]["sha256"] == test_clips.digest
    assert record["figures"][0]["metric"] == "R@1" and record["figures"][0]["chance"]["low"] >= 0
    assert np.sum(record["zero_shot"]["confusion"]) == 60


def test_one_group_is_never_above_chance(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    one = replace(test_clips, clips=tuple(replace(clip, group="one") for clip in test_clips.clips))
    result = evaluate(embedder, one)
    assert "yes" not in {figure.above_chance for figure in result.figures}
    assert json.loads(result.to_json())["figures"][0]["low"] is None
    assert any("All clips are one group" in note for note in result.notes)
    assert table(result)[1][3] == "–"


def test_groups_in_both_splits_are_noted(embedder: BandEmbedder, test_clips: EvalClips) -> None:
    result = evaluate(embedder, test_clips, test_clips)
    assert any("30 groups stand in both splits" in note for note in result.notes)


def test_verdict_on_one_group_is_undefined(one_group: Path) -> None:
    clips = load_clips(one_group)
    sounds = [clips.audio(number) for number in range(len(clips))]
    embedder = BandEmbedder().fit(sounds, [clip.captions[0] for clip in clips.clips])
    found = evaluate(embedder, clips)
    verdicts = {figure.above_chance for figure in found.figures}
    assert verdicts <= {"–", "no"} and "–" in verdicts
    record = json.loads(found.to_json())
    assert {each["above_chance"] for each in record["figures"]} == {None, "no"} & {
        None if verdict == "–" else verdict for verdict in verdicts
    }
    head, *rows = table(found)
    assert {row[head.index("95 %")] for row in rows} == {"–"}
    zero_shot = found.figure("zero_shot", "accuracy")
    assert zero_shot is not None and math.isnan(zero_shot.chance.low)
    assert "no interval" in headline(replace(found, retrieval=None))["against"] or zero_shot.above_chance == "no"

from openclap.formatting import join_first, markdown_table


def test_a_markdown_table_escapes_bars_and_folds_white_space():
    rows = [["name", "n"], ["a | b", "1"], ["two\nlines", "10"]]
    expected = "| name | n |\n| --- | ---: |\n| a \\| b | 1 |\n| two lines | 10 |"
    assert markdown_table(rows, right=[1]) == expected


def test_join_first_counts_the_names_it_leaves_out():
    assert join_first(["a", "b", "c"]) == "a, b, c"
    assert join_first(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert join_first([], 2) == ""

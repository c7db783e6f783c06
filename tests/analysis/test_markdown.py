from allennlp_metaner.analysis.markdown import markdown_table


def test_table() -> None:
    rows = [["a|b", "two\nlines ", "1"], ["", "c", "2"]]
    assert markdown_table(["x", "y", "number"], rows, left=2).splitlines() == [
        "| x | y | number |",
        "| --- | --- | ---: |",
        r"| a\|b | two lines | 1 |",
        "|  | c | 2 |",
    ]

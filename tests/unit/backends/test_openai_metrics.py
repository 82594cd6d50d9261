"""Measurements under our names, from whichever of the service's places they come."""

import base64

from trainer.backends.openai.metrics import by_step, in_our_names, others, read_csv, results

CSV = (
    b"step,train_loss,train_accuracy,valid_loss,validation_mean_token_accuracy,full_valid_loss\n"
    b"1,2.5,0.5,-1,,\n2,2.0,,1.5,0.6,1.25\n"
)
ROWS = [
    {"step": 1.0, "train_loss": 2.5, "train_mean_token_accuracy": 0.5},
    {"step": 2.0, "train_loss": 2.0, "valid_loss": 1.5, "valid_mean_token_accuracy": 0.6, "full_valid_loss": 1.25},
]


def test_a_result_file_is_read_under_our_names() -> None:
    assert read_csv(CSV) == ROWS


def test_also_as_base64_and_with_a_byte_order_mark() -> None:
    assert read_csv(base64.b64encode(CSV)) == ROWS
    assert read_csv(b"\xef\xbb\xbf" + CSV.replace(b"\n", b"\r\n")) == ROWS


def test_what_is_no_table_has_no_rows() -> None:
    for content in (b"", b"\x00\xff", b"<html>no, thanks</html>", b"a,b\n1,2\n", b'{"id": '):
        assert read_csv(content) == []


def test_what_is_not_measured_is_left_out() -> None:
    data = {"step": 3, "train_loss": None, "valid_loss": "NaN", "full_validation_loss": "-1", "epoch": 0.5, "on": True}
    assert in_our_names(data) == {"step": 3, "epoch": 0.5}


def test_a_later_source_says_it_better() -> None:
    merged = by_step([{"step": 2, "train_loss": 9.0, "total_steps": 4}, {"step": 1}, {"step": 2, "train_loss": 1.0}])
    assert list(merged) == [1, 2]
    assert results(merged) == [{"step": 2, "train_loss": 1.0}]
    assert others(merged) == [{"step": 2, "total_steps": 4}]

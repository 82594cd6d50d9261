"""The studio in a real browser: first paint of 1,000 runs, a chart of 100,000 steps, bytes of a live update.

`make bench-ui` writes `benchmarks/results/ui.json`. Server and browser share this machine's cores.
"""

import argparse
import json
import math
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
RESULTS = Path(__file__).with_name("results") / "ui.json"
PAINTED = """() => new Promise(done => {
  const seen = performance.getEntriesByName('first-contentful-paint')[0];
  if (seen) return done(seen.startTime);
  new PerformanceObserver(list => { for (const each of list.getEntries())
    if (each.name === 'first-contentful-paint') done(each.startTime); }).observe({ type: 'paint', buffered: true });
})"""
COUNT_FRAMES = """() => { window.frames_seen = []; let last = performance.now();
  const tick = now => { window.frames_seen.push(now - last); last = now;
    window.ticking = requestAnimationFrame(tick); };
  window.ticking = requestAnimationFrame(tick); }"""


def make_runs(root: Path, num_runs: int, num_steps: int) -> None:
    """Runs of 20 steps, the first of which has many."""
    from tests.studio import make_run, write_results

    rows = [{"step": step, "train_loss": 2 / step, "valid_loss": 2.5 / step} for step in range(1, 21)]
    for number in range(num_runs):
        write_results(make_run(root, f"run-{number:04}", total_steps=20, step=20), rows)
    noise = random.Random(0)
    many = [
        {"step": step, "train_loss": 0.4 + 2 * math.exp(-step / 12_000) + noise.gauss(0, 0.05)}
        | ({"valid_loss": 1 + math.exp(-step / 9_000)} if step % 500 == 0 else {})
        for step in range(1, num_steps + 1)
    ]
    write_results(root / "run-0000", many)


def first_paint(page: Any, address: str, repeats: int) -> dict[str, float]:
    """Milliseconds from the navigation to the first content, of a browser that has the static files."""
    found = []
    for _ in range(repeats):
        page.goto(address)
        found.append(page.evaluate(PAINTED))
    return {"median_ms": round(median(found), 1), "worst_ms": round(max(found), 1)}


def chart(page: Any, address: str) -> dict[str, float]:
    """Milliseconds until the chart is drawn, and those of its frames while a pointer moves over it."""
    begin = time.monotonic()
    page.goto(address)
    page.locator("#chart-loss[data-drawn]").wait_for()
    page.wait_for_function("document.querySelector('#chart-loss').dataset.points > 0")
    drawn = 1000 * (time.monotonic() - begin)
    box = page.locator("#chart-loss .u-over").bounding_box()
    page.evaluate(COUNT_FRAMES)
    for step in range(240):
        page.mouse.move(box["x"] + box["width"] * (step % 120) / 120, box["y"] + box["height"] / 2)
    frames = sorted(
        page.evaluate("() => { cancelAnimationFrame(window.ticking); return window.frames_seen.slice(1); }")
    )
    drawn_points = page.evaluate("performance.getEntriesByType('resource').find(e => e.name.includes('points?'))")
    return {
        "steps": int(page.locator("#chart-loss").get_attribute("data-points")) // 3,
        "drawn_ms": round(drawn, 1),
        "points_bytes": drawn_points["encodedBodySize"],
        "hover_frames": len(frames),
        "hover_frame_median_ms": round(median(frames), 1),
        "hover_frame_p95_ms": round(frames[int(0.95 * len(frames))], 1),
    }


def update_bytes(served: Any, folder: Path, updates: int) -> dict[str, float]:
    """Bytes that a stream sends for a new step of the long run."""
    from tests.integration.test_studio_run_tabs import Stream, address_in
    from trainer.runs.results import as_line

    stream = Stream(served, address_in(served.get(f"/runs/{folder.name}/metrics").text))
    for number in range(updates):
        with (folder / "results.csv").open("a") as file:
            file.write(as_line({"step": 10**6 + number, "train_loss": 0.5 + number / 100}))
        stream.points()
    stream.close()
    return {"updates": updates, "bytes_each": round(stream.num_bytes / updates)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results are written as JSON")
    arguments = parser.parse_args()
    from tests.browser import browsed
    from tests.studio import studio
    from trainer.web.streaming import POLL_SECONDS

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        make_runs(root, arguments.runs, arguments.steps)
        with studio(root) as served, browsed(served) as page:
            page.set_viewport_size({"width": 1280, "height": 900})
            address, served.server.studio.streams.poll_seconds = served.server.address, POLL_SECONDS
            found = {
                "runs": arguments.runs,
                "list": first_paint(page, f"{address}/runs", arguments.repeats),
                "run": first_paint(page, f"{address}/runs/run-0001/metrics", arguments.repeats),
                "chart, file not read yet": chart(page, f"{address}/runs/run-0000/metrics"),
                "chart, again": chart(page, f"{address}/runs/run-0000/metrics"),
                "live update": update_bytes(served, root / "run-0000", 20),
                "browser": page.context.browser.version,
                "python": platform.python_version(),
                "load": [round(value, 1) for value in os.getloadavg()],
            }
    text = json.dumps(found, indent=2)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

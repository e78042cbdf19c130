"""Two small tasks in AppWorld's format, written with the package itself: python small_appworld.py ROOT

Run by the interpreter that has the package. All apps are empty but for the person whose tasks these are.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import os
import sys
from pathlib import Path

root = Path(sys.argv[1]).resolve()
os.environ["APPWORLD_ROOT"] = str(root)

from appworld.apps import get_all_apps  # noqa: E402
from appworld.collections.api_docs import ApiDocCollection  # noqa: E402
from appworld.collections.models import ModelCollection  # noqa: E402
from appworld.common.constants import DB_VERSION  # noqa: E402

PERSON = {
    "first_name": "Ada",
    "last_name": "Hill",
    "email": "ada@example.com",
    "phone_number": "5551234567",
}
JUDGE = """
def evaluate(test, public_data, private_data, main_user, models, ground_truth_answer):
    with test("the answer is right"):
        test.case(float(models.end.supervisor.Task.all()[0].answer), "==", ground_truth_answer)
    with test("nobody else has come"):
        test.case(len(models.end.supervisor.Supervisor.all()), "==", 1)
"""


ASKED = {"sum_1": ("What is two plus three?", 5), "sum_2": ("What is two plus two?", 4)}


def write() -> None:
    apps = get_all_apps()
    data = root / "data"
    base = data / "base_dbs"
    base.mkdir(parents=True)
    models = ModelCollection.load(str(base), load_apps=[], force_empty_apps=apps, create_db=True)
    person = {**PERSON, "birthday": "1990-01-01", "sex": "female"}
    models.admin.MainUser.create_save(**person)
    models.supervisor.Supervisor.create_save(**person)
    described = data / "api_docs" / "standard"
    described.mkdir(parents=True)
    for app, calls in ApiDocCollection.build().items():
        told = {name: {**call, "canary_string": ""} for name, call in calls.items()}
        (described / f"{app}.json").write_text(json.dumps(told))
    (data / "datasets").mkdir()
    for name, number in (("train", "sum_1"), ("test_normal", "sum_2")):
        (data / "datasets" / f"{name}.txt").write_text(f"{number}\n")
        task(data / "tasks" / number, base, apps, *ASKED[number])


def task(folder: Path, base: Path, apps: list[str], instruction: str, answer: int) -> None:
    truth = folder / "ground_truth"
    truth.mkdir(parents=True)
    specs = {"instruction": instruction, "supervisor": PERSON, "datetime": "2023-05-18T12:00:00"}
    (folder / "specs.json").write_text(json.dumps({**specs, "db_version": DB_VERSION}))
    models = ModelCollection.load(f":memory:{folder.name}", str(base), load_apps=apps)
    models.start_db_tracker()
    models.supervisor.Task.create_save(supervisor_id=1, instruction=instruction)
    models.save(str(folder / "dbs"), format="changes", app_names=apps)
    models.close()
    tests = [
        {"requirement": "the answer is right", "label": "no_op_fail"},
        {"requirement": "nobody else has come", "label": "no_op_pass"},
    ]
    counted = {"num_apps": 0, "num_apis": 0, "num_api_calls": 0, "num_solution_code_lines": 1}
    metadata = {"difficulty": 1, "mode": "minimal", **counted}
    files = {"metadata": metadata, "test_data": tests, "answer": answer}
    for name, said in {**files, "public_data": {}, "private_data": {}}.items():
        (truth / f"{name}.json").write_text(json.dumps(said))
    (truth / "evaluation.py").write_text(JUDGE)


if __name__ == "__main__":
    write()

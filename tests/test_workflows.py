"""The workflows on GitHub: GitHub's own actions, least permissions, nothing published that failed.

`make lint` checks their schema, and has zizmor look for actions without a commit, credentials that
stay, and permissions of a whole workflow.
"""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS = {file.stem: yaml.safe_load(file.read_text()) for file in FILES}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
WRITES = {  # job -> the one thing that it may write
    ("main", "pages"): {"pages": "write", "id-token": "write"},
    ("main", "editions"): {"contents": "write"},
    ("weekly", "report"): {"issues": "write"},
    ("release", "publish"): {"contents": "write"},
}
JOBS = [(name, job) for name, workflow in WORKFLOWS.items() for job in workflow["jobs"]]


def steps(name: str, job: str) -> list[dict]:
    return WORKFLOWS[name]["jobs"][job]["steps"]


def test_there_is_a_workflow_for_each_occasion():
    # YAML 1.1 reads the key `on` as true.
    occasions = {name: set(workflow[True]) for name, workflow in WORKFLOWS.items()}
    assert occasions["pull-request"] == {"pull_request"}
    assert occasions["main"] == {"push", "workflow_dispatch"}
    assert occasions["weekly"] == {"schedule", "workflow_dispatch"}
    assert occasions["release"] == {"push"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_actions_are_pinned_to_a_commit_whose_version_is_named(file):
    used = re.findall(r"uses:(.*)", file.read_text())
    pinned = r" actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+"
    assert [line for line in used if not re.fullmatch(pinned, line)] == []


def test_an_action_is_pinned_to_one_commit_everywhere():
    used = re.findall(r"uses: (.*)@(.*) #", "".join(file.read_text() for file in FILES))
    assert len(dict(used)) == len(set(used)) > 0


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_jobs_may_do_no_more_than_they_need(name, job):
    assert WORKFLOWS[name]["permissions"] == {}
    allowed = WRITES.get((name, job), {"contents": "read"})
    assert WORKFLOWS[name]["jobs"][job]["permissions"] == allowed
    if "write" in allowed.values():  # what may write runs none of the repository's code
        commands = " ".join(step.get("run", "") + step.get("uses", "") for step in steps(name, job))
        assert not re.search(r"\b(make|python|pip|checkout)\b", commands)


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_jobs_end_by_themselves(name, job):
    assert "timeout-minutes" in WORKFLOWS[name]["jobs"][job]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_secret_is_needed(file):
    assert "secrets." not in file.read_text()


@pytest.mark.parametrize(("name", "job"), [place for place in WRITES if place[0] != "weekly"])
def test_nothing_is_published_before_all_has_passed(name, job):
    before, waiting = set(), [job]
    while waiting:
        needs = WORKFLOWS[name]["jobs"][waiting.pop()].get("needs", [])
        needs = [needs] if isinstance(needs, str) else needs
        waiting += [one for one in needs if one not in before]
        before |= set(needs)
    commands = [step.get("run", "") for one in before for step in steps(name, one)]
    for target in ("lint", "test", "book", "browser"):
        assert any(re.match(rf"make {target}\b", command) for command in commands)
    everything = str(WORKFLOWS[name])
    assert "continue-on-error" not in everything and "always()" not in everything


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_workflows_use_the_targets_there_are(file):
    used = set(re.findall(r"run: make ([a-z-]+)", file.read_text()))
    assert used <= TARGETS


def test_failure_of_any_weekly_check_is_reported():
    report = WORKFLOWS["weekly"]["jobs"]["report"]
    assert set(report["needs"]) == set(WORKFLOWS["weekly"]["jobs"]) - {"report"}
    assert report["if"] == "failure()"

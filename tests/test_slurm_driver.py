"""The executor for Slurm while Slurm's controller is away, without a Slurm; with one: tests/slurm."""

import asyncio
from types import SimpleNamespace

import pytest
import snakemake_executor_plugin_slurm as plugin

from course import slurm, slurm_driver


@pytest.fixture
def executor(monkeypatch):
    """As it is while a graph runs, with jobs 1 to 3; the plugin's part of a look is `executor.plugin_finds`."""
    executor = object.__new__(slurm_driver.Executor)
    told = SimpleNamespace(finish_callback=lambda job: None, error_callback=lambda job: None)
    executor.workflow = SimpleNamespace(scheduler=told)
    executor.print_job_error = lambda *_, **__: None
    executor.accounted, executor.submitted = {"0"}, []

    async def check(self, active_jobs):
        for job in active_jobs:
            what = self.plugin_finds.get(job.external_jobid)
            if what == "done":
                self.report_job_success(job)
            elif what == "failed":
                self.report_job_error(job, msg="it failed")
            elif what == "runs":
                yield job

    monkeypatch.setattr(plugin.Executor, "check_active_jobs", check)
    monkeypatch.setattr(plugin.Executor, "run_job", lambda self, job: self.submitted.append(job))
    return executor


def look(executor, **finds) -> list[str]:
    executor.plugin_finds = {number: what for number, what in zip("123", finds.values(), strict=False)}

    async def every() -> list[str]:
        jobs = [SimpleNamespace(external_jobid=number, job=number) for number in "123"]
        return [job.external_jobid async for job in executor.check_active_jobs(jobs)]

    return asyncio.run(every())


def test_a_look_that_nothing_answers_forgets_no_job(executor):
    assert look(executor) == ["1", "2", "3"]
    assert look(executor, first="done", second="failed", third="runs") == ["3"]
    assert look(executor, first="runs") == ["1", "2", "3"]


def test_a_part_is_submitted_when_slurm_answers_again(executor, monkeypatch):
    answers = iter((False, False, True))
    monkeypatch.setattr(slurm, "answers", lambda: next(answers))
    monkeypatch.setattr(slurm_driver, "PAUSE", 0)
    executor.run_job("part")
    assert executor.submitted == ["part"] and next(answers, None) is None


def test_the_queue_is_looked_at_as_often_as_the_profile_says(executor, monkeypatch):
    paused = []

    async def sleep(seconds):
        paused.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    executor.workflow.remote_execution_settings = SimpleNamespace(seconds_between_status_checks=20)
    executor.next_seconds_between_status_checks = 180  # the plugin's own idea after half an hour
    asyncio.run(executor.sleep())
    assert paused == [20]

"""Snakemake with an executor for Slurm that keeps all jobs: python -m course.slurm_driver, arguments as for snakemake.

Slurm's controller may be unreachable for minutes while its jobs run on. The plugin (2.8.0) queries it a few times, and
without an answer it drops all its jobs: the graph then waits for ever. Submissions would use up all tries of a part
within half a minute. And it queries the queue less and less often, up to every three minutes, in spite of
`seconds-between-status-checks`.
"""

import asyncio
import time

import snakemake_executor_plugin_slurm as plugin

from course import slurm

PAUSE = 5  # seconds between two queries for Slurm's controller; a query itself waits 9 s for it


class Executor(plugin.Executor):
    """The plugin's; only methods that every executor of Snakemake has are overridden."""

    def __init__(self, workflow, logger):
        self.accounted = set()  # ids of jobs with a known state at the last query; set before `super` starts to query
        super().__init__(workflow, logger)

    async def check_active_jobs(self, active_jobs):
        """Yields the active jobs: those of the plugin, and those that it neither yields nor reports as ended."""
        self.accounted.clear()
        async for job in super().check_active_jobs(active_jobs):
            self.accounted.add(job.external_jobid)
            yield job
        for job in active_jobs:
            if job.external_jobid not in self.accounted:
                yield job

    async def sleep(self):
        await asyncio.sleep(self.workflow.remote_execution_settings.seconds_between_status_checks)

    def report_job_success(self, job_info):
        self.accounted.add(job_info.external_jobid)
        super().report_job_success(job_info)

    def report_job_error(self, job_info, msg=None, **kwargs):
        self.accounted.add(job_info.external_jobid)
        super().report_job_error(job_info, msg=msg, **kwargs)

    def run_job(self, job):
        while not slurm.answers():
            time.sleep(PAUSE)
        super().run_job(job)


if __name__ == "__main__":
    plugin.Executor = Executor
    from snakemake.cli import main  # on import it looks for executors

    main()

"""Snakemake with an executor for Slurm that forgets no job: python -m course.slurm_driver, words as for snakemake.

Slurm's controller may be away for minutes while its jobs run on. The plugin (2.8.0) asks a few times what became of
them, and when nothing answers it drops every job it knows: the graph then waits for ever. Submissions would use up all
tries of a part within half a minute. And it looks at the queue less and less often, up to every three minutes, whatever
`seconds-between-status-checks` says.
"""

import asyncio
import time

import snakemake_executor_plugin_slurm as plugin

from course import slurm

PAUSE = 5  # seconds until Slurm is asked again whether it answers; a question itself waits 9 s for a controller


class Executor(plugin.Executor):
    """The plugin's; only what every executor of Snakemake has is changed, nothing of the plugin's inside."""

    def __init__(self, workflow, logger):
        self.accounted = set()  # ids of jobs of which the last look knew something; before `super` starts to look
        super().__init__(workflow, logger)

    async def check_active_jobs(self, active_jobs):
        """Yields the jobs that go on: those of the plugin, and those that it neither yields nor says how they ended."""
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

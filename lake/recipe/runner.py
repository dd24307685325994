"""Where the preparation job runs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lake.recipe.section import Section

_HOST_AND_PORT = r"^(https?://)?[^\s/:]+:\d{1,5}$"


class Runner(Section):
    """Where the preparation job runs. It changes the time that the job takes, never a row of what it writes."""

    name: Literal["local", "flink", "spark", "dataflow", "portable"] = Field(
        default="local", description="portable: any other Beam job service at `job_endpoint`"
    )
    workers: int = Field(
        default=1, ge=1, description="processes (local), parallelism (flink), largest number of machines (dataflow)"
    )
    flink_master: str | None = Field(
        default=None, pattern=_HOST_AND_PORT, description="HOST:PORT of the JobManager's REST API"
    )
    flink_version: Literal["1.19", "1.20", "2.0", "2.1", "2.2"] = Field(
        default="1.20", description="of the cluster; the job server has to be made for the same"
    )
    job_endpoint: str | None = Field(
        default=None,
        pattern=_HOST_AND_PORT,
        description="HOST:PORT of a Beam job service that runs already; unset: flink starts one from its jar",
    )
    environment: Literal["loopback", "process", "external", "docker"] = Field(
        default="loopback",
        description="what runs the Python workers of flink, spark and portable: the submitting process (one machine "
        "only), a command, a worker pool, a container",
    )
    environment_config: str | None = Field(
        default=None, description='process: {"command": "/path"}; external: HOST:PORT of the pool; docker: the image'
    )
    shared_folder: bool = Field(
        default=False, description="a local-folder store is mounted at the same path on every worker's machine"
    )
    options: tuple[str, ...] = Field(
        default=(), description="further Beam pipeline options, as on its command line; they come last and win"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.name == "flink" and not (self.flink_master or self.job_endpoint):
            raise ValueError("flink_master (the JobManager's HOST:PORT) or job_endpoint for flink")
        if self.name in ("spark", "portable") and not self.job_endpoint:
            raise ValueError(f"job_endpoint (HOST:PORT of a Beam job service) for {self.name}")
        if self.environment != "loopback" and not self.environment_config:
            raise ValueError(f"environment_config for environment {self.environment}")
        return self

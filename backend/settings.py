"""What can be configured: the process from its environment, a project from its YAML. Each default stands here, once."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Kind = Literal["image", "text"]
"""What an item can be."""

HeadKind = Literal["linear", "mlp", "best"]
"""What turns embeddings into predictions; best: whichever does better on held-out labels."""


class Settings(BaseSettings):
    """The process: addresses, secrets and folders, from environment variables."""

    model_config = SettingsConfigDict(env_prefix="NEXTBATCH_", extra="ignore", populate_by_name=True)

    home: Path = Field(default=Path("~/.local/share/nextbatch"), description="Database, vectors and artefacts.")
    cache: Path = Field(default=Path("~/.cache/nextbatch"), description="Environments of their own; may be deleted.")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; default: SQLite below home.")
    url: str | None = Field(default=None, description="Address under which Label Studio reaches this backend.")
    data_root: Path | None = Field(default=None, description="Local files are read only below this folder.")
    username: str | None = Field(default=None, description="Basic auth of the ML backend.")
    password: SecretStr | None = Field(default=None, description="Basic auth of the ML backend.")
    blob_cache_gib: float = Field(
        default=0.0, ge=0, description="Keep so much of what was fetched below the cache folder; 0 keeps nothing."
    )
    ftp_username: str | None = Field(default=None, description="Login for ftp hosts in pool.allow_hosts.")
    ftp_password: SecretStr | None = Field(default=None, description="Login for ftp hosts in pool.allow_hosts.")
    webhook_secret: SecretStr | None = Field(default=None, description="Value of the X-Nextbatch-Secret header.")
    alert_url: str | None = Field(default=None, description="Alerts are posted there; wants an alert_secret.")
    alert_secret: SecretStr | None = Field(default=None, description="Signs what is posted to alert_url.")
    predict_deadline_s: float = Field(default=5.0, gt=0, description="/predict answers within this.")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto", description="What `precision: auto` means; machines that share a database must agree."
    )
    role: Literal["all", "encode"] = Field(
        default="all", description="encode: a worker that takes jobs and no rounds, and shares no home with the others."
    )
    job_items: int = Field(default=4_000, ge=1, description="Items a job of a scan that many workers share.")
    metrics: str | None = Field(default=None, description="host:port at which a worker answers Prometheus.")
    secret_key: SecretStr | None = Field(
        default=None, description="Signs the pages' sessions; default: made below home. Web processes must agree."
    )
    log: Literal["auto", "json", "text"] = Field(
        default="auto", description="How processes log; auto: JSON, but text in a terminal."
    )
    worker_threads: int = Field(default=2, ge=1, description="Threads of numerical libraries in the worker.")
    label_studio_url: str | None = Field(default=None, validation_alias="LABEL_STUDIO_URL")
    label_studio_api_key: SecretStr | None = Field(default=None, validation_alias="LABEL_STUDIO_API_KEY")
    mlflow_tracking_uri: str | None = Field(
        default=None,
        validation_alias="MLFLOW_TRACKING_URI",
        description="An MLflow server to which model versions are copied.",
    )
    triton_url: str | None = Field(
        default=None,
        validation_alias="TRITON_URL",
        description="host:port of gRPC, several with commas between them; default: embedded.",
    )

    def model_post_init(self, _context: Any) -> None:
        self.home = self.home.expanduser().absolute()
        self.cache = self.cache.expanduser().absolute()
        for name in ("url", "label_studio_url"):
            if address := getattr(self, name):
                setattr(self, name, address.rstrip("/"))

    @property
    def database(self) -> str:
        """SQLAlchemy URL of the database, with a driver that is installed."""
        if self.database_url is None:
            return f"sqlite:///{self.home / 'nextbatch.db'}"
        return self.database_url.replace("postgresql://", "postgresql+psycopg://", 1)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The process's settings, read once."""
    return Settings()


class Section(BaseModel):
    """A part of a project's YAML: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelStudioSection(Section):
    title: str | None = Field(default=None, description="Title of the project in Label Studio; default: the name.")
    project_id: int | None = Field(default=None, description="An existing Label Studio project to connect to.")
    label_config: str | None = Field(default=None, description="XML for a new project; default: made from `labels`.")
    labels: tuple[str, ...] = Field(default=(), description="Choices of a new classification project.")
    kind: Kind = Field(default="image", description="What is shown in a new project that is made from `labels`.")


class PoolSection(Section):
    """Where items come from: tasks of the Label Studio project, a folder, an S3 prefix, a manifest, an ftp folder, or
    the API, to which they are pushed."""

    source: Literal["tasks", "folder", "s3", "manifest", "ftp", "api"] = "tasks"
    path: str | None = Field(
        default=None, description="Folder or manifest below NEXTBATCH_DATA_ROOT, s3://bucket/prefix, ftp://host/path."
    )
    uri_field: str = Field(default="uri", description="Column of a manifest with the items' addresses.")
    holdout_path: str | None = Field(
        default=None, description="Folder of class folders: labelled items for the holdout."
    )
    holdout_items: Annotated[int, Field(ge=0)] = 500
    max_items: int | None = Field(default=None, ge=1, description="Take a uniform random sample of this size.")
    allow_hosts: tuple[str, ...] = Field(
        default=(), description="Hosts in private address ranges that items may come from."
    )
    allow_buckets: tuple[str, ...] = Field(
        default=(), description="bucket or bucket/prefix that S3 items may come from."
    )
    s3_endpoint: str | None = Field(default=None, description="Endpoint of an S3-compatible store.")
    s3_region: str = "us-east-1"


class EncoderSection(Section):
    name: Literal["auto", "efficientnet-lite0", "efficientnet-lite0-mirrored", "resnet18", "all-minilm-l6-v2"] = Field(
        default="auto",
        description="auto: efficientnet-lite0 for images, all-minilm-l6-v2 for texts. mirrored: the mean of an image's "
        "embedding and its mirror image's, for twice the time.",
    )
    weights: Path | None = Field(
        default=None, description="A state-dict file; default: the package's or the hub's weights."
    )
    precision: Literal["auto", "bf16", "fp32", "int8"] = Field(
        default="auto",
        description="auto: what this CPU runs faster of bf16 and fp32; bf16 falls back to fp32 where the CPU lacks it. "
        "int8: what passed its check on this project's images (nextbatch models quantise).",
    )


class FineTuneSection(Section):
    """How `nextbatch models fine-tune` trains the encoder further on the project's labels; docs/learning.md."""

    stage: Literal["last", "all"] = Field(default="last", description="Train the network's end, or all of it.")
    epochs: Annotated[int, Field(ge=1, le=1_000)] = Field(default=12, description="At most so many.")
    patience: Annotated[int, Field(ge=1)] = Field(default=3, description="Stop after so many epochs without a gain.")
    aside: Annotated[float, Field(gt=0, lt=0.9)] = Field(
        default=0.2, description="Share of the training labels that only say when to stop."
    )
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 3e-5
    minibatch: Annotated[int, Field(ge=2, le=1_024)] = 32
    augment: Literal["none", "crop", "full"] = Field(
        default="full", description="crop: random parts; full: mirrored and in other light and colours as well."
    )
    pixels: Annotated[int, Field(ge=32, le=1_024)] | None = Field(
        default=None, description="Pixels a side that it trains on; default: what the encoder sees. Fewer are faster."
    )
    balanced: bool = Field(default=False, description="Weigh all classes alike, however many labels they have.")


class HeadSection(Section):
    """What turns embeddings into predictions; docs/learning.md says how the kinds compare."""

    kind: HeadKind = Field(default="linear", description="mlp: one hidden layer; best: cross-validation decides.")
    balanced: bool = Field(default=False, description="Weigh all classes alike, however many labels they have.")
    tune_s: Annotated[float, Field(ge=0, le=3_600)] = Field(
        default=0.0, description="Seconds a round may look for better hyperparameters, on training labels; 0: none."
    )
    tune_trials: Annotated[int, Field(ge=1, le=10_000)] = Field(default=40, description="At most so many of each kind.")


class BatchSection(Section):
    size: Annotated[int, Field(ge=1, le=100_000)] = 50
    holdout_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="Share of every batch drawn uniformly at random, for the holdout, for good."
    )
    first_holdout: Annotated[int, Field(ge=0)] = Field(default=20, description="At least so many in the first batch.")


class ModelsSection(Section):
    """Whole classifiers in the Triton of TRITON_URL, for `samples: models`; docs/strategies.md says what they take."""

    names: tuple[str, ...] = ()
    draws: int = Field(default=1, ge=1, le=100, description="Calls of each; more than one where dropout stays on.")
    shortlist: int = Field(default=2_000, ge=1, description="They are asked about the items that the head doubts most.")


class StrategySection(Section):
    name: str = "auto"
    parameters: dict[str, Any] = Field(default_factory=dict)
    cost_field: str | None = Field(default=None, description="Field of a task's data: what its label costs.")
    group_field: str | None = Field(default=None, description="Field of a task's data by which to balance.")
    samples: Literal["bootstrap", "dropout", "laplace", "models"] = Field(
        default="bootstrap", description="Where strategies that compare plausible heads (bald, ...) get them from."
    )
    models: ModelsSection = ModelsSection()


class TriggerSection(Section):
    """A round starts when `new_labels` came and it has been quiet, or when the batch runs out."""

    new_labels: Annotated[int, Field(ge=1)] = 20
    quiet_s: Annotated[float, Field(ge=0)] = 5.0
    max_wait_s: Annotated[float, Field(ge=0)] = 300.0
    rest_share: Annotated[float, Field(ge=0, lt=1)] = 0.2


class ValidationSection(Section):
    """Labels are checked before a round trains on them; docs/models.md lists what is looked for."""

    accept: tuple[str, ...] = Field(
        default=(), description="Codes of findings that warn instead of stopping a round, such as labels_orphaned."
    )


class FeedbackSection(Section):
    """Votes on predictions that were served: items with many against them join the next batch."""

    votes_against: int = Field(default=3, ge=1, description="So many votes against an item, and more than for it.")
    round_on_fall: bool = Field(
        default=False, description="Ask for a round when people accept fewer predictions than before."
    )


class AnalysisSection(Section):
    """After each round the model is looked at closely on the holdout; docs/models.md says how."""

    sensitivity_items: Annotated[int, Field(ge=0, le=2_000)] = Field(
        default=64, description="Images of the holdout that are changed a little, to see what the model then says."
    )


class ChallengerSection(Section):
    """A version that `nextbatch models challenge` named scores beside the champion; docs/models.md says how."""

    share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="Share of the items whose predictions are the challenger's; 0: none is shown."
    )
    decide: Literal["hand", "rule"] = Field(
        default="hand", description="rule: promote a challenger that is surely better, withdraw one that is worse."
    )
    labels: Annotated[int, Field(ge=20)] = Field(
        default=100, description="Labels of the holdout at which the two are first compared; then at twice as many."
    )


class StoppingSection(Section):
    """What is enough; people decide when to stop, the loop's page says what the learning curve promises."""

    target: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="The accuracy on the random holdout that is wanted, such as 0.95."
    )


class ProjectConfig(Section):
    """A project's configuration as a service: one YAML file."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    label_source: Literal["label-studio", "api"] = Field(
        default="label-studio", description="api: labels come to POST /labels, and there is no Label Studio."
    )
    label_studio: LabelStudioSection = LabelStudioSection()
    pool: PoolSection = PoolSection()
    encoder: EncoderSection = EncoderSection()
    fine_tune: FineTuneSection = FineTuneSection()
    head: HeadSection = HeadSection()
    batch: BatchSection = BatchSection()
    strategy: StrategySection = StrategySection()
    trigger: TriggerSection = TriggerSection()
    stopping: StoppingSection = StoppingSection()
    validation: ValidationSection = ValidationSection()
    analysis: AnalysisSection = AnalysisSection()
    challenger: ChallengerSection = ChallengerSection()
    feedback: FeedbackSection = FeedbackSection()
    publish: Literal["reorder", "create"] = "reorder"
    seed: int = 0

    @property
    def needs_tasks(self) -> bool:
        """Whether an item must be a task of Label Studio before it can be published."""
        return self.publish == "reorder" and self.label_source == "label-studio"

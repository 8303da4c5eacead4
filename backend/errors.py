"""Every error that nextbatch raises on purpose: a class per cause, whose docstring is its message.

A docstring may name facts in braces; they are given as keyword arguments: ``raise MissingSetting(name=…, mend=…)``.
What the user can mend, the message says how to mend.
"""

from typing import ClassVar


class NextbatchError(Exception):
    """Something went wrong in nextbatch."""

    is_passing: ClassVar[bool] = False
    """Whether waiting may mend it, as with a service that is away."""

    def __init__(self, **facts: object) -> None:
        import inspect  # needs ast and dis, which who imports the client should not wait for

        super().__init__(inspect.cleandoc(type(self).__doc__ or "").format(**facts))
        self.facts = facts


# --- configuration -------------------------------------------------------------------------------------------


class DatabaseUnready(NextbatchError):
    """The database cannot be used: {problem}.
    A new one gets its tables from `nextbatch migrate` (`nextbatch serve` does it too). Else check
    NEXTBATCH_DATABASE_URL and NEXTBATCH_HOME."""


class BadConfiguration(NextbatchError):
    """{path}{line}: {problem}"""


class MissingSetting(NextbatchError):
    """{name} is not set. {mend}"""


class UnknownProject(NextbatchError):
    """There is no project {name!r}. Known projects: {known}. Create one with: nextbatch seed configs/NAME.yaml"""


# --- learning -----------------------------------------------------------------------------------------------


class GraphUnreadable(NextbatchError):
    """The neighbour graph in {path} cannot be used: {problem}. Delete the file: the next round builds it again."""


class UmapFailed(NextbatchError):
    """The map's second form could not be made: {problem}. The log is {log}.
    It is tried again once a tenth more items are on the map; the principal axes are there all the same."""


class MirrorFailed(NextbatchError):
    """The models could not be copied to MLflow: {problem}. Look at MLFLOW_TRACKING_URI and whether the server answers;
    the next round tries again, and so does: nextbatch models mirror PROJECT"""


class MapUnreadable(NextbatchError):
    """The map in {path} cannot be used: {problem}. Delete the file: the next round draws it again."""


class HeadUnreadable(NextbatchError):
    """The head in {path} cannot be used: {problem}.
    Choose another model version, or start a round: it fits a new head."""


class WrongEmbeddingSize(NextbatchError):
    """Embeddings of shape {shape} were given to a head for {features} features: another encoder made them.
    Use the head together with the encoder that its model version names."""


class NothingToLearnFrom(NextbatchError):
    """There is no label to fit a head with. Label at least one item, or import labels that exist already."""


class UnusableTrainingData(NextbatchError):
    """The head cannot be fitted: {problem}."""


class HeadNotForTask(NextbatchError):
    """{asked} does not learn what this project's labels are ({task}). {mend}"""


class HoldoutMismatch(NextbatchError):
    """Two models can only be compared on the same holdout: {problem}."""


class SnapshotUnreadable(NextbatchError):
    """The data snapshot in {path} cannot be used: {problem}. The next round writes it again from the database."""


class LabelsRefused(NextbatchError):
    """No model was trained on these labels, and the last one goes on answering.
    {findings}
    To train nevertheless, put {codes} into validation.accept and run nextbatch apply."""


class LoanUnreadable(NextbatchError):
    """The neighbour graph in {path}, with which a head was fitted, cannot be used: {problem}.
    Without it that head cannot be made again; it answers as before."""


class NotRebuildable(NextbatchError):
    """{version} was made before its record held all that makes a head again; it lacks: {missing}.
    The next round's version can be verified."""


class UnknownVersion(NextbatchError):
    """{project} has no model version {name!r}. It has: {known}"""


class VersionInUse(NextbatchError):
    """{version} cannot be deleted: {reason}. {mend}"""


class VersionDeleted(NextbatchError):
    """{version} was deleted: its head is gone. What it was trained on is still known: nextbatch models show."""


class BadSearchTerm(NextbatchError):
    """{term!r} cannot be looked for.
    Give a word, or one of these names with >, >=, <, <= or = and a value: {names}."""


class NoEarlierVersion(NextbatchError):
    """Before {version} nothing answered, or what did was deleted.
    Choose a version by hand: nextbatch models promote PROJECT vN"""


class ExportRefused(NextbatchError):
    """{path} cannot be written: {problem}. Name another path with --out."""


class PackageMissing(NextbatchError):
    """{what} needs {package}. Install it with: pip install 'nextbatch[{extra}]'"""


# --- pool: reading items ------------------------------------------------------------------------------------
# An ItemUnreadable is recorded as the item's reason; facts are shortened by their raisers, and carry no secrets.


class ItemUnreadable(NextbatchError):
    """The item cannot be read."""


class AddressForbidden(ItemUnreadable):
    """{host}: {address} is not a public address. If the host is yours, add it to pool.allow_hosts."""


class BucketForbidden(ItemUnreadable):
    """{uri}: not below a bucket or prefix in pool.allow_buckets. Add it there if it is yours."""


class PathForbidden(ItemUnreadable):
    """{path}: {problem}. Local files are read only below NEXTBATCH_DATA_ROOT."""


class SourceUnsupported(ItemUnreadable):
    """{uri}: {problem}."""


class ItemMissing(ItemUnreadable):
    """{uri}: there is nothing at this address."""


class AccessRefused(ItemUnreadable):
    """{uri}: reading was refused ({problem}). Check the credentials for this source."""


class ItemTooLarge(ItemUnreadable):
    """{uri}: larger than the limit of {limit_bytes} bytes."""


class FetchTimedOut(ItemUnreadable):
    """{uri}: no answer within {timeout_s} s."""

    is_passing: ClassVar[bool] = True


class FetchFailed(ItemUnreadable):
    """{uri}: {problem}."""

    is_passing: ClassVar[bool] = True


class ImageBroken(ItemUnreadable):
    """This is no readable image: {problem}."""


class ImageTooLarge(ItemUnreadable):
    """The image has {size}, more than the limit of {limit}."""


class TextBroken(ItemUnreadable):
    """This is no readable text: {problem}."""


class TextTooLarge(ItemUnreadable):
    """The text has {size} bytes, more than the limit of {limit}."""


class PoolUnreadable(NextbatchError):
    """The pool {path} cannot be listed: {problem}."""


class PoolEmptied(NextbatchError):
    """The pool names no item any more, where {count} were. Is its folder mounted, and is pool.path right?
    Nothing was taken away. If it is meant, set pool.source to tasks."""


# --- pool: folders and archives -----------------------------------------------------------------------------


class DatasetUnreadable(NextbatchError):
    """{path}: {problem}.
    Give a folder or a .tar.xz, .tar.gz or .zip of class folders, or of train/ and test/ with class folders in them."""


class ArchiveUnsafe(NextbatchError):
    """{path}: refused, for {problem}. Pack it again with plain files and folders only."""


class ArchiveTooLarge(NextbatchError):
    """{path}: refused, it unpacks to more than {limit}. Unpack it yourself if you trust it, and give the folder."""


# --- label studio --------------------------------------------------------------------------------------------


class LabelStudioMissing(NextbatchError):
    """Label Studio is not installed at {path}. Remove that environment's folder: it is made again at the next start."""


class LabelStudioDied(NextbatchError):
    """Label Studio ended with exit code {code}. The end of its log:
    {tail}"""


class LabelStudioNotReady(NextbatchError):
    """Label Studio at {url} did not answer within {timeout_s:.0f} s. The end of its log:
    {tail}"""


class LabelStudioUnreachable(NextbatchError):
    """Label Studio at {url} cannot be reached: {problem}. Check LABEL_STUDIO_URL, and that it is running."""

    is_passing: ClassVar[bool] = True


class BadToken(NextbatchError):
    """Label Studio at {url} refused the API key. Copy a new one from its Account & Settings page into
    LABEL_STUDIO_API_KEY. A legacy token works only where legacy tokens are switched on in the organisation."""


class NotAllowed(NextbatchError):
    """Label Studio refused {request}: {problem}. The API key's user needs to be an owner or manager of the project."""


class LabelStudioRefused(NextbatchError):
    """Label Studio answered {status} to {request}: {problem}"""


class NoSuchPage(NextbatchError):
    """Label Studio at {url} has nothing for {request}.
    Check LABEL_STUDIO_URL, and that the API key's user can see the project."""


class NoSuchProject(NextbatchError):
    """Label Studio at {url} has no project {project_id} that the API key's user can see."""


class BadLabelConfig(NextbatchError):
    """The labelling configuration cannot be used: {problem}. {mend}"""


class UnknownLabel(NextbatchError):
    """{label!r} is not a choice of the labelling configuration. Its choices are: {choices}"""


class HalfConnected(NextbatchError):
    """Label Studio has the backend {url} but no working connection to it: {problem}. It blocks private addresses.
    Set SSRF_PROTECTION_ENABLED=false and ML_BLOCK_LOCAL_IP=false there, then run `nextbatch doctor --fix`."""


class SlowLabelStudio(NextbatchError):
    """Label Studio at {url} did not finish {request} within {timeout_s:.0f} s."""

    is_passing: ClassVar[bool] = True


# --- scoring and encoders ------------------------------------------------------------------------------------


class VectorStoreMismatch(NextbatchError):
    """{path} holds {found}, not {expected}. Each encoder digest needs a folder of its own: move that file away."""


class VectorsMissing(NextbatchError):
    """{missing} of {asked} items have no vector under encoder {digest}, for example {example}. Encode them first."""


class VectorsDamaged(NextbatchError):
    """{path} is damaged: {problem}. Run verify(mend=True): the damaged vectors are forgotten and encoded again."""


class VectorsInUse(NextbatchError):
    """A scan is writing vectors of encoder {digest}. Repeat when it has ended, or stop it first."""

    is_passing = True


class BadVectors(NextbatchError):
    """The vectors cannot be stored: {problem}."""


class EncoderDown(NextbatchError):
    """The encoder at {url} does not answer: {problem}.
    Check that Triton runs and that TRITON_URL is its gRPC address."""

    is_passing = True


class EncoderNotLoaded(NextbatchError):
    """Triton at {url} does not serve {model}: {problem}. Load the model, or start the worker that writes it."""

    is_passing = True


class EncoderFailed(NextbatchError):
    """The encoder could not encode {count} items of shape {shape}: {problem}."""


class FullModelUnfit(NextbatchError):
    """{name} cannot be asked for samples: {problem}. A model of strategy.models takes images, UINT8 [-1, H, W, 3], and
    gives FP32 [-1, K] for the project's K labels in their order; put preprocessing into its graph or an ensemble."""


class BadEncoderWeights(NextbatchError):
    """The weights of {name} cannot be used: {problem}.
    Give a state-dict file (.safetensors, .pth) of this architecture."""


class NotFineTunable(NextbatchError):
    """The encoder cannot be fine-tuned on these labels: {problem}. {mend}"""


class FineTuneRunning(NextbatchError):
    """This fine-tuning ({run}) is under way in another process.
    Wait for it, or end that process: what it did is kept."""


class FineTuneFailed(NextbatchError):
    """Fine-tuning ended early: {problem}. The log is {log}.
    The same command goes on from the last checkpoint; fine_tune.minibatch and fine_tune.pixels cost memory."""


class NotQuantisable(NextbatchError):
    """The encoder cannot be quantised here: {problem}. {mend}"""


class QuantisationFailed(NextbatchError):
    """Quantisation ended early: {problem}. The log is {log}."""


class Int8Refused(NextbatchError):
    """The int8 form of {name} did not pass its check and is not kept: {problem}.
    The project goes on with the encoder that it uses."""


class Int8Missing(NextbatchError):
    """encoder.precision is int8, and {problem}. {mend}"""


class EncoderRefused(NextbatchError):
    """The new encoder {name} cannot be used: {problem}. {mend}"""


class EncoderUntried(NextbatchError):
    """The new encoder cannot be tried: none of {count} items could be read, the first because: {problem}"""

    is_passing = True


class ChangeCancelled(NextbatchError):
    """The change of the encoder was cancelled."""


class EncoderMismatch(NextbatchError):
    """encoder.name is {name}, which encodes {encodes}s, and the items are {items}s. Set encoder.name to auto."""


class JobMismatch(NextbatchError):
    """This worker would encode with {mine}, and the job is for {wanted}: the machines' weights or precisions differ.
    Set NEXTBATCH_PRECISION, and encoder.weights, alike on all of them."""


class JobsFailed(NextbatchError):
    """{count} jobs of the scan failed. The first one: {problem}"""

    is_passing = True


class PrecisionNotStock(NextbatchError):
    """A stock Triton computes {name} in fp32, and this encoder is the {precision} one: vectors of the two never mix.
    Set encoder.precision to fp32 in the project, or NEXTBATCH_PRECISION=fp32 on all machines. The next scan encodes its
    pool anew."""


class NothingToExport(NextbatchError):
    """{name!r} is neither an encoder ({encoders}) nor a project ({known})."""


class EncoderUnreadable(NextbatchError):
    """The exported encoder in {path} cannot be used: {problem}. Delete that folder: it is exported again."""


class TritonUnsupported(NextbatchError):
    """The embedded Triton does not run here: {reason}. Set TRITON_URL to a running Triton, or encode in the worker."""


class TritonFailed(NextbatchError):
    """The embedded Triton failed: {problem}. Its log: {log}"""


# --- serving -------------------------------------------------------------------------------------------------


class CannotListen(NextbatchError):
    """nextbatch cannot listen at {url}: {problem}. Stop what listens there, or give another --host or --port."""


class WebSilent(NextbatchError):
    """The web process did not answer at {url} within {timeout_s:.0f} s. Its log is {log} and ends with:
    {tail}"""


# --- web: Label Studio's calls -------------------------------------------------------------------------------


class MalformedEvent(NextbatchError):
    """This is no webhook body of Label Studio: {problem}."""


class UnknownEvent(NextbatchError):
    """nextbatch does not read events of the kind {action!r}."""


class MalformedRequest(NextbatchError):
    """The request cannot be answered: {problem}."""


# --- web: the service API ------------------------------------------------------------------------------------------


class NothingToSeed(NextbatchError):
    """{name} has label_source: api, so there is nothing to set up in Label Studio.
    Make it with POST /api/v1/projects, or with make_project of the client."""


class ProjectExists(NextbatchError):
    """There is a project {name!r} already, with another configuration. Choose another name, or use that project."""


class NotLabelledHere(NextbatchError):
    """Labels of {name} come from Label Studio, not through the API. Make a project with label_source: api for them."""


class UnknownItem(NextbatchError):
    """{place}: {name} has no such item. Push it first."""


class LabelConflict(NextbatchError):
    """{place}: {problem}."""


class TokenExists(NextbatchError):
    """There is a token {name!r} already. Choose another name: one that was revoked stays in the list."""


class UnknownToken(NextbatchError):
    """There is no token {name!r}. Known tokens: {known}."""


class KeyReused(NextbatchError):
    """This Idempotency-Key belongs to another request. Use a new key for each request, and it again to repeat that."""


# --- the service, seen from outside --------------------------------------------------------------------------------


class ServiceRefused(NextbatchError):
    """nextbatch at {url} refused ({status}): {detail}"""


class QueryFailed(NextbatchError):
    """Query {number} of {project} did not end well: {reason}"""


class ServiceSilent(NextbatchError):
    """nextbatch at {url} gave no answer in time: {problem}.
    Check the address, and that `nextbatch serve` runs there; a round goes on without whoever waits for it."""

    is_passing: ClassVar[bool] = True


# --- environments --------------------------------------------------------------------------------------------------


class EnvironmentNotBuilt(NextbatchError):
    """{command} failed. The end of {log}:
    {tail}
    Check the network and the disk, then run the same command again: it starts anew."""


# --- seeding and rounds --------------------------------------------------------------------------------------------


class StrategyFieldMissing(NextbatchError):
    """No item's data has the field {field!r} that strategy.cost_field or strategy.group_field names.
    Name a field that the tasks have."""


class UnknownItems(NextbatchError):
    """{project} has no such items: {ids}. Load the page again: they may have been of another project."""


class TooManyFirst(NextbatchError):
    """{project} would have more than {most} items that come first. Choose fewer, or undo some."""


class NotMovable(NextbatchError):
    """Item {item} keeps its rank: {problem}. Load the page again, and move it there."""


class TooManyQueries(NextbatchError):
    """{count} queries of this project wait already. Ask again when some of them have ended, or cancel them."""


class NoSuchStrategy(NextbatchError):
    """There is no strategy {name!r}. Known strategies: {known}."""


class RoundCancelled(NextbatchError):
    """Round {number} was cancelled."""


class NothingToLookFor(NextbatchError):
    """A round cannot look for the like of what there is not: {problem}.
    Ask with --like and ids of tasks, --like-class and a class that has labels, or --like-errors once a model errs."""


class UnknownSource(NextbatchError):
    """{name}: plausible heads come from {known}, and not from {source!r}."""


class BacktestNotForTask(NextbatchError):
    """Labels of {name} are {task}. A backtest replays strategies where every item has exactly one class."""


class BenchUnusable(NextbatchError):
    """A backtest needs labels of two classes or more and 20 items on either side; here are {problem}.
    Give it more labelled items."""


class BacktestMismatch(NextbatchError):
    """{folder} holds a backtest of other data or with another schedule. Delete it, or name another one with --out."""


class FolderOutsideRoot(NextbatchError):
    """{path} is not below NEXTBATCH_DATA_ROOT ({root}), and files outside it are never read.
    Move the folder, or set NEXTBATCH_DATA_ROOT to a folder above it."""


class RoundFailed(NextbatchError):
    """Round {number} did not end well: {reason}"""


class NotPublished(NextbatchError):
    """Label Studio did not keep the batch {version}: {problem}. The round tries again by itself; if it goes on,
    run `nextbatch doctor`."""

    is_passing: ClassVar[bool] = True


class SecondOpinionsUnordered(NextbatchError):
    """The batch wants second labels of {count} tasks, but the project asks for {wanted} annotations of every task, and
    then Label Studio serves tasks that have one first, at random. Set Annotations per task to 1 in its settings
    (maximum_annotations): what needs another label, nextbatch asks for one by one."""


class BackendRefused(NextbatchError):
    """Label Studio does not accept the ML backend at {url}: {problem}
    It must reach that address: check NEXTBATCH_URL and that `nextbatch serve` runs. For a loopback or private address
    set ML_BLOCK_LOCAL_IP=false and SSRF_PROTECTION_ENABLED=false in Label Studio."""


class LocalFilesRefused(NextbatchError):
    """Label Studio does not show files below {folder}: {problem}
    Set LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT to a folder above it
    there, the same as NEXTBATCH_DATA_ROOT here, and restart it."""

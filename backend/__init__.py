"""nextbatch: a Label Studio ML backend that decides what people should label next."""

import os

# By default gRPC sets itself up anew in a forked child, before exec: one in forty of those that we start died of it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

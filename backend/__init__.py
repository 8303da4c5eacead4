"""nextbatch: a Label Studio ML backend that decides what people should label next."""

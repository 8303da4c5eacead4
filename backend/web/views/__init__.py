"""The read model: what pages and API show, as small typed answers to bounded queries. Nothing here writes."""

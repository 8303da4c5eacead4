FROM python:3.11.13-slim-bookworm
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 NEXTBATCH_HOME=/var/lib/nextbatch
WORKDIR /app
# A number, so that an orchestrator can see that it is not root; both folders are volumes and take their owner from here.
RUN useradd --uid 10001 --create-home --home-dir /var/lib/nextbatch nextbatch \
 && install --directory --owner nextbatch --group nextbatch /models
# A CPU build of torch is enough, and gigabytes smaller: give its index with --build-arg TORCH_INDEX_URL=…
ARG TORCH_INDEX_URL=""
RUN pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch==2.13.0 torchvision==0.28.0
COPY pyproject.toml README.md LICENSE ./
COPY backend backend
COPY strategies strategies
RUN pip install ".[parquet,text]"
USER 10001:10001
VOLUME ["/var/lib/nextbatch", "/models"]
EXPOSE 9090
ENTRYPOINT ["nextbatch"]
CMD ["serve", "--host", "0.0.0.0"]

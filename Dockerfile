FROM python:3.11-slim
ENV PIP_NO_CACHE_DIR=1 NEXTBATCH_HOME=/var/lib/nextbatch
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY backend backend
COPY strategies strategies
# A CPU build of torch is enough, and gigabytes smaller: give its index with --build-arg TORCH_INDEX_URL=…
ARG TORCH_INDEX_URL=""
RUN pip install ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch==2.13.0 torchvision==0.28.0 && pip install .
RUN useradd --system --create-home --home-dir /var/lib/nextbatch nextbatch
USER nextbatch
VOLUME /var/lib/nextbatch
EXPOSE 9090
ENTRYPOINT ["nextbatch"]
CMD ["serve", "--host", "0.0.0.0"]

FROM python:3.11-slim
ENV PIP_NO_CACHE_DIR=1 NEXTBATCH_HOME=/var/lib/nextbatch
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY backend backend
COPY strategies strategies
# The CPU build of torch: nextbatch runs its encoder in Triton or OpenVINO.
RUN pip install --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 torchvision==0.28.0 && pip install .
RUN useradd --system --create-home --home-dir /var/lib/nextbatch nextbatch
USER nextbatch
VOLUME /var/lib/nextbatch
EXPOSE 9090
ENTRYPOINT ["nextbatch"]
CMD ["serve", "--host", "0.0.0.0"]

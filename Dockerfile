# The explorer on the CPU, as a user without rights, with the bundled collection prepared:
#   docker build -t sieve .
#   docker run -p 7860:7860 sieve                                   # search only, safe for a network
#   docker run -p 127.0.0.1:7860:7860 -v sieve:/data sieve \
#       explore my-photos --host 0.0.0.0 --open-to-network          # your own collections, and training
# Any other command works too: docker run sieve search scenes "a dog" --without "a beach"
FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/sieve
ENV PATH=/opt/sieve/bin:$PATH
# The CPU build of torch leaves out 4 GB of CUDA libraries.
RUN pip install torch==2.14.* torchvision==0.29.* --index-url https://download.pytorch.org/whl/cpu
WORKDIR /src
COPY . .
RUN pip install .

FROM python:3.12-slim
RUN useradd --uid 1000 --create-home sieve && install -d -o sieve -g sieve /data
COPY --from=build /opt/sieve /opt/sieve
ENV PATH=/opt/sieve/bin:$PATH SIEVE_HOME=/data PYTHONUNBUFFERED=1
USER 1000
WORKDIR /home/sieve
RUN sieve dimensions scenes --csv > /dev/null
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=90s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/favicon.ico')"]
ENTRYPOINT ["sieve"]
CMD ["explore", "scenes", "--host", "0.0.0.0", "--public-safe"]

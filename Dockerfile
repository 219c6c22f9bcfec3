# Cockpit, supervisor and worker beside Ultralytics:
#   docker build -t nantui .
#   docker run --gpus all --shm-size=8g -it -v "$PWD:/work" nantui train model=yolov8n.pt data=my-data.yaml
FROM ultralytics/ultralytics:8.4.0
WORKDIR /src/nantui
COPY pyproject.toml README.md LICENSE ./
COPY nantui nantui
COPY styles styles
COPY configs configs
RUN pip install --no-cache-dir --break-system-packages .
WORKDIR /work
ENTRYPOINT ["nantui"]

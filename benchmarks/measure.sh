#!/usr/bin/env bash
# The timings of README.md, docs/benchmarks.md, docs/superpixels.md and what tracking costs (docs/camera.md), one after
# another on a machine that does nothing else: about an hour on two cores. Left out: the hour of soak.py, browsers
# (web/), and GPUs (gpu_check.py).
#
#   benchmarks/measure.sh PHOTOGRAPHS OUT [SECTION ...]
#
# PHOTOGRAPHS: a folder of a few hundred *.jpg, also in subfolders. OUT gets machine.txt, one file a section, and the
# graphs. Sections: see the end of this file; default all. PYTHON names the interpreter, which has the extras export,
# train, bulk, serve, openvino and httpx; CONTRIB a folder with opencv-contrib (make test puts it into
# build/opencv-contrib).
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
photographs=$(realpath "$1")
if [ -e "$2" ] && [ -n "$(ls -A "$2")" ] && [ ! -f "$2/machine.txt" ]; then
  echo "error: $2 holds files of something else. Remedy: choose another OUT." >&2
  exit 1
fi
mkdir -p "$2"; out=$(realpath "$2"); shift 2
here=$(dirname "$(realpath "$0")")
python=${PYTHON:-python}
contrib=$(realpath "${CONTRIB:-$here/../build/opencv-contrib}")
photograph=$(find "$photographs" -name "*.jpg" | sort | sed -n 1p)
small=$out/cast_small.onnx any=$out/cast_small_any.onnx
tiny=$("$python" -c "import cast_sdk; print(cast_sdk.Runtime().path)") tiny_any=$out/cast_tiny_any.onnx

machine() {
  date -u "+%Y-%m-%d %H:%M UTC"
  lscpu | grep -E "^(Architecture|Model name|CPU\(s\)|Thread)"
  lscpu | grep -o -w -E "avx2|avx512f|avx512_vnni|avx_vnni|avx512_bf16|amx_int8|amx_bf16|asimd" | sort -u | paste -sd " "
  free -g | awk '/Mem:/ {print "memory: " $2 " GiB"}'
  "$python" - <<'PY'
import platform, importlib.metadata as m
print("Python", platform.python_version(), platform.platform())
names = "numpy opencv-python onnxruntime openvino torch onnx onnxscript pyarrow ray".split()
for name in names:
    try:
        print(name, m.version(name))
    except m.PackageNotFoundError:
        pass
PY
}

graphs() {
  [ -f "$small" ] || "$python" -m cast_sdk.export.cli --model cast_small --out "$small"
  [ -f "$any" ] || "$python" -m cast_sdk.export.cli --model cast_small --batch 0 --out "$any"
  [ -f "$tiny_any" ] || "$python" -m cast_sdk.export.cli --ckpt "${tiny%.onnx}.safetensors" --batch 0 --out "$tiny_any"
}

startup() {
  for model in "$small" "$tiny"; do "$python" "$here/startup.py" "$model" "$photograph"; done
  "$python" "$here/startup.py" "$small" "$photograph" --backend openvino
}
openvino() {
  "$python" "$here/openvino_precision.py" "$tiny" "$photographs" --count 100
  "$python" "$here/openvino_precision.py" "$small" "$photographs" --count 40
  for precision in fp32 bf16; do
    "$python" -m cast_sdk.runtime.commands.bench --compare "$small" "$small@openvino:$precision" --threads 2
  done
}
streaming() {
  "$python" "$here/streaming.py" "$small" --threads 2
  for model in "$small" "$tiny"; do
    for threads in 1 2; do "$python" "$here/streaming.py" "$model" --threads $threads --frames 150; done
  done
}
seeds() { PYTHONPATH=$contrib:${PYTHONPATH:-} "$python" "$here/seeds_speed.py" "$photographs" --images 40; }
tracking() { "$python" "$here/tracking_speed.py" --photograph "$photograph"; }
bulk() {
  "$python" "$here/many/bulk_speed.py" "$photographs" --count 1000 --ways segment local
  "$python" "$here/many/bulk_speed.py" "$photographs" --count 1800 --ways local ray
}
service() {
  "$python" "$here/many/service_load.py" "$photographs" --seconds 60
  "$python" "$here/many/batching.py" "$photographs" "$tiny" "$tiny_any" --rounds 5
  "$python" "$here/many/batching.py" "$photographs" "$tiny" "$tiny_any" --rounds 5 --threads 1
  "$python" "$here/many/batching.py" "$photographs" "$small" "$any" --rounds 3
}
training() {
  "$python" "$here/training/loader.py" "$photographs" --images 60 --rounds 3
  CAST_SDK_OPENCV_CONTRIB=$contrib "$python" "$here/training/train_step.py" "$photographs" --rounds 5
  "$python" "$here/training/compiled_step.py" --rounds 10
}
network() {
  for busy in "" --busy; do "$python" "$here/waiting_threads.py" "$small" "$photographs" $busy; done
  for threads in 1 2; do
    PYTHONPATH=$contrib:${PYTHONPATH:-} "$python" "$here/onnx_speed.py" "$photographs" --threads $threads --rounds 25 --int8
  done
}
dense() {
  for model in segmenter_cast_small spml_cast_small; do
    for threads in 1 2; do
      PYTHONPATH=$contrib:${PYTHONPATH:-} "$python" "$here/onnx_speed.py" "$photographs" --model $model \
        --image-size 512 --threads $threads --rounds 7 --int8
    done
  done
}

machine > "$out/machine.txt"
sections=("$@")
[ ${#sections[@]} -gt 0 ] || sections=(graphs startup openvino streaming seeds tracking network dense training service bulk)
failed=0
for section in "${sections[@]}"; do
  set +e  # not "|| ...": inside of that a failing command would be passed over
  (set -e; echo "load before: $(cut -d " " -f 1-3 /proc/loadavg)"; time "$section") > "$out/$section.txt" 2>&1
  status=$?
  set -e
  if [ $status -ne 0 ]; then
    failed=1
    echo "$section FAILED: see $out/$section.txt"
  else
    echo "$section: $out/$section.txt"
  fi
done
exit $failed

#!/usr/bin/env bash
# Measure climate fields beside all rivals, as docs/RESULTS.md has it.
#
# TEMPERATURES: folder of files of temperatures, at bounds in kelvin, and at ratio 100.
# FIELDS: folder of files of anything, at bounds in percent of the range, beside the rivals that come first somewhere.
set -euo pipefail
if [ $# != 3 ]; then
    echo "usage: benchmarks/climate.sh TEMPERATURES FIELDS OUTPUT" >&2
    exit 2
fi
measure() {
    OMP_NUM_THREADS=1 python "$(dirname "$0")/rate_distortion.py" --modality climate --efforts fast "$@"
}
measure --data "$1" --max-errors 0.1 0.3 0.5 1 2 --qualities 30 40 50 60 --at-ratio 100 --output "$3/temperatures"
measure --data "$2" --max-errors 0.1% 1% 10% --frames 32 --output "$3/fields" \
    --without ZFP "JPEG 2000" EBCC "bit rounding, zstd" deflate

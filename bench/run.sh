#!/bin/sh
# Benchmarks of holdfast beside Restate, DBOS and the ceiling of the SDK. Called by `make bench`.
#
#   bench/run.sh                      everything, about seven minutes
#   bench/run.sh --quick              one short round, about two minutes
#   bench/run.sh compare [options]    only the comparison; see python -m bench.compare --help
#   bench/run.sh footprint [options]  only start, memory, disk, recovery
#   bench/run.sh profile [options]    where the time goes inside the process
#   bench/run.sh markdown             put the last figures into docs/performance.md
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=.venv-bench
stamp=$venv/.stamp

if ! command -v wrk >/dev/null; then
	echo "note: wrk is missing, so nothing is measured over HTTP. On Debian or Ubuntu: apt-get install wrk; on macOS: brew install wrk"
fi
if [ ! -e node_modules/.bin/restate-server ] && [ -z "${RESTATE_SERVER_BIN:-}" ]; then
	if command -v npm >/dev/null; then
		echo "installing the Restate server of package-lock.json into node_modules (once)"
		npm ci --ignore-scripts --silent
	else
		echo "note: npm is missing, so Restate is left out. Install Node.js, which brings npm, and run this again"
	fi
fi

# A virtual environment of its own: the tests must not need what only the comparison needs.
if [ ! -e $stamp ] || [ bench/requirements.txt -nt $stamp ] || [ pyproject.toml -nt $stamp ] || [ "$(cat $stamp)" != "$PWD" ]; then
	"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
		echo "error: the benchmarks need Python 3.11 or newer; say which: PYTHON=/path/to/python3.12 bench/run.sh" >&2
		exit 1
	}
	echo "installing the packages of bench/requirements.txt into $venv (once)"
	"$python" -m venv --clear $venv
	$venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement bench/requirements.txt
	$venv/bin/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	printf '%s' "$PWD" >$stamp
fi

case ${1:-} in
compare | footprint | profile | markdown)
	what=$1
	shift
	exec $venv/bin/python -m "bench.$what" "$@"
	;;
"" | --quick)
	$venv/bin/python -m bench.compare "$@"
	echo
	exec $venv/bin/python -m bench.footprint "$@"
	;;
*)
	echo "error: unknown argument: $1; see the head of bench/run.sh" >&2
	exit 2
	;;
esac

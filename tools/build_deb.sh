#!/usr/bin/env bash
# Build the Debian package of the working tree: what git tracks or would, as it lies here.
#
#     tools/build_deb.sh [--version VERSION] [--output DIRECTORY]
#
# The package goes to build/deb, or to --output, and its path to the last line on stdout.
# --version builds the same code under another version, to try an upgrade.
#
# It is built from a copy, so the tree stays clean; as nobody, when this is run as root.
# Build dependencies that are missing are installed by root, and named to others.
# DEB_BUILD_OPTIONS=nocheck leaves the tests out.
set -euo pipefail

version='' output=''
while [ $# -gt 0 ]; do
    case $1 in
        --version) version=$2 ;;
        --output) output=$2 ;;
        *) echo "usage: $0 [--version VERSION] [--output DIRECTORY]" >&2; exit 2 ;;
    esac
    shift 2
done
cd "$(dirname "$0")/.."
output=$(realpath -m "${output:-build/deb}")

# A short name: the tests put sockets below it, whose path may have some 100 characters.
work=$(mktemp -d "${TMPDIR:-/tmp}/deb.XXXXXX")
trap 'rm -rf "$work"' EXIT
source=$work/piod
mkdir "$source"
git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
        if [ -e "$file" ]; then printf '%s\0' "$file"; fi # not what is deleted here
    done | tar --create --null --files-from=- | tar --extract --directory "$source"
mv "$source/packaging/debian" "$source/debian"
rmdir "$source/packaging"

if [ -n "$version" ]; then
    sed -i "1s/([^)]*)/($version)/" "$source/debian/changelog"
    # what Python calls the version: without what only Debian's has, such as ~
    sed -i "s/^__version__ = .*/__version__ = \"${version%%[~+-]*}\"/" "$source/piod/__init__.py"
fi

build=(dpkg-buildpackage --unsigned-source --unsigned-changes --build=binary)
if ! (cd "$source" && dpkg-checkbuilddeps); then
    if [ "$(id -u)" != 0 ]; then
        echo "Install the build dependencies first: apt-get build-dep $PWD/packaging" >&2
        exit 1
    fi
    DEBIAN_FRONTEND=noninteractive apt-get build-dep --yes --quiet --quiet \
        --no-install-recommends "$source" >&2
fi

clean=(env --ignore-environment "PATH=/usr/sbin:/usr/bin:/sbin:/bin" LANG=C.UTF-8
    "HOME=$work" "TMPDIR=$work" "DEB_BUILD_OPTIONS=${DEB_BUILD_OPTIONS:-}")
if [ "$(id -u)" = 0 ]; then
    chown --recursive nobody:nogroup "$work"
    clean=(setpriv --reuid=nobody --regid=nogroup --clear-groups "${clean[@]}")
fi
(cd "$source" && "${clean[@]}" "${build[@]}") >&2

mkdir -p "$output"
cp "$work"/piod_*.deb "$work"/piod_*.changes "$work"/piod_*.buildinfo "$output"
ls "$output"/piod_"${version:-$(cd "$source" && dpkg-parsechangelog --show-field Version)}"_all.deb

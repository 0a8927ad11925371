# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the scripts of the guest machine share: where its files are, and how qemu is called.
# To be sourced.
# shellcheck disable=SC2034,SC2054  # its variables are for the others; qemu's options hold commas

# A failing $(…) ends the script too.
shopt -s inherit_errexit

guest_scripts=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
project=$(realpath "$guest_scripts/../..")
guest_cache=$project/build/guest

# qemu's disks have one size each, whatever is on them: a resumed guest does not ask again.
inputs_size=1G
outputs_size=4G

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
  say "$@"
  exit 1
}

# needs_value OPTION COUNT: COUNT of remaining arguments must include the option's value.
needs_value() { (($2 >= 2)) || { say "$1 needs a value"; exit 2; }; }

# list_packages FILE [RELEASE]: the names in a package list, one a line, that are for this release.
list_packages() {
  sed -e 's/#.*//' "$1" | while read -r name only; do
    if [[ -n $name && (-z $only || $only == "[${2:-}]") ]]; then echo "$name"; fi
  done
}

# image_of RELEASE: the folder of the image that the present package list and scripts make.
image_of() {
  local hash
  hash=$(cd "$project" && sha256sum packaging/guest-packages.txt integration-tests/guest/build-image \
    integration-tests/guest/inside/agent integration-tests/guest/inside/analysis-guest.service | sha256sum)
  echo "$guest_cache/$1-${hash:0:12}"
}

qemu_version() { qemu-system-x86_64 --version | sed -n 's/.*version \([^ )]*\).*/\1/p'; }

# ready_state_of IMAGE ACCEL: the folder with the guest as it was when it had booted. It suits only the qemu that
# wrote it, and under KVM only this host's processor.
ready_state_of() {
  local folder
  folder=$1/ready-$2-$(qemu_version)
  [[ $2 == tcg ]] || folder+=-$(cat /proc/sys/kernel/random/boot_id)
  echo "$folder"
}

# guest_machine IMAGE ACCEL CONSOLE_LOG: sets the array `machine`, the qemu command without the three disks and the
# terminal. Kernel and systemd write to the first serial port, which goes to the file CONSOLE_LOG.
guest_machine() {
  local accel=$2 cpu=host
  if [[ $accel == tcg ]]; then
    accel=tcg,thread=multi
    cpu=max
  fi
  machine=(qemu-system-x86_64 -accel "$accel" -cpu "$cpu" -machine q35 -smp 2 -m 3G
    -nodefaults -display none -no-reboot -nic none
    -device virtio-rng-pci -device vmgenid,guid=auto
    -chardev "file,id=console,path=$3" -serial chardev:console
    -kernel "$1/vmlinuz" -initrd "$1/initrd"
    -append "console=ttyS0 psi=1 panic=-1 root=/dev/vda rw fsck.mode=skip net.ifnames=0 random.trust_cpu=on")
}

# disk FILE OPTIONS: one virtio disk; vda, vdb and vdc are root, inputs and outputs, in this order.
disk() { printf 'if=virtio,file=%s,%s' "$1" "$2"; }

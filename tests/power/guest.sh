# Sourced by the scripts in the bare virtual machine: what systemd would have done of it.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/home/bob
bob() { setpriv --reuid bob --regid bob --init-groups "$@"; }
set_up() {
    mount -o remount,rw /
    mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm
    modprobe -a virtio_console loop fuse
    chmod 666 /dev/fuse
    ip link set lo up
    echo 0123456789abcdef0123456789abcdef >/etc/machine-id # the same machine each time
    hostname debian13
    for _ in $(seq 50); do [ -e /dev/fuse ] && [ -e /dev/loop-control ] && break; sleep 0.1; done
}

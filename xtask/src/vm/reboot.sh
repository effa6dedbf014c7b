# First boot: install, start pods on both runtimes, reboot. Second boot: in which order did they end, and are they back?
exec > /vm/out 2>&1
built=WORKSPACE/target/debug
fail() { echo "FAILED: $*"; stanchion get pods; stanchion get events; journalctl -u stanchion --no-pager | tail -50; finish 1; }
finish() { echo "$1" > /vm/status; systemctl --no-block poweroff; exit; }

running() {
    i=0
    while [ "$(stanchion get pods 2>/dev/null | grep -c ' Running ')" != 3 ]; do
        i=$((i + 1)); [ $i -lt 90 ] || fail "not all pods run"
        sleep 2
    done
}

pod() { cat > "/etc/stanchion/manifests/$1.yaml" <<POD
apiVersion: v1
kind: Pod
metadata: {name: $1}
spec:
  $2
  containers:
  - name: main
    image: preloaded/busybox:docker
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "trap 'cat /proc/uptime > /notes/$1.told; sleep 3; cat /proc/uptime > /notes/$1.end; exit 0' TERM; while :; do sleep 3600 & wait \$!; done"]
    resources: {limits: {memory: 64Mi}}
    volumeMounts: [{name: notes, mountPath: /notes}]
  volumes: [{name: notes, hostPath: {path: /notes}}]
POD
}

# Hundredths of a second after the boot, of the machine's last life.
at() { [ -s "/notes/$1" ] || fail "there is no $1: the pod was not ended in its own time"; cut -d' ' -f1 "/notes/$1" | tr -d .; }

if [ ! -d /notes ]; then
    mkdir -p /notes /etc/stanchion/manifests /var/lib/stanchion/images
    install -D $built/stanchion $built/stanchion-logger -t /usr/local/bin
    install -D $built/libstanchion_containerd.so $built/libstanchion_docker.so -t /usr/lib/stanchion/backends
    install -m 0644 -D ../config/stanchion.service /etc/systemd/system/stanchion.service
    cp ../target/xtask/images-*/busybox-docker.tar /var/lib/stanchion/images/
    cat > /etc/stanchion/stanchion.toml <<'TOML'
[agent]
default_backend = "containerd"
[[source]]
path = "/etc/stanchion/manifests"
[images]
preload = "/var/lib/stanchion/images"
[backend.containerd]
systemd_cgroup = true
[backend.docker]
[runtime_classes]
docker = "docker"
TOML
    pod usual ""
    pod critical "priorityClassName: system-node-critical"
    pod docked "runtimeClassName: docker"
    systemctl unmask containerd.service docker.service docker.socket
    systemctl daemon-reload
    systemctl enable --now containerd docker stanchion || fail "a service did not start"
    running
    stanchion get pods
    echo 0 > /vm/status
    sync
    systemctl --no-block reboot
    exit
fi

running
stanchion get pods
for pod in usual critical docked; do at $pod.end > /dev/null; done
for pod in usual docked; do
    [ "$(at $pod.end)" -le "$(at critical.told)" ] || fail "the critical pod was told to end before $pod had"
done
for pod in usual critical docked; do
    pid=$(pgrep -f "/notes/$pod.told" | head -1)
    group=/sys/fs/cgroup$(sed 's/^0:://' "/proc/$pid/cgroup")
    case $group in */stanchion.slice/*) ;; *) fail "$pod is in $group" ;; esac
    # R-RES-14, R-RES-15.
    [ "$(cat "$group/memory.max") $(cat "$group/memory.oom.group")" = "67108864 1" ] || fail "limits of $pod"
done
finish 0

#!/bin/bash
# In the guest of appliance.sh: runs what comes over the port `appliance`, one script a line in
# base64, and answers with one line: exit status and output in base64.
port=/dev/virtio-ports/appliance
until [ -e $port ]; do sleep 0.2; done
exec 3<>$port
while :; do
    # Nobody at the other end reads as an end of file.
    read -r line <&3 || { sleep 0.2; continue; }
    output=$(bash -c "$(base64 -d <<<"$line")" 2>&1 </dev/null | base64 -w0; exit "${PIPESTATUS[0]}")
    printf '%s %s\n' $? "$output" >&3
done

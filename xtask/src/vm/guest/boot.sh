#!/bin/busybox sh
# First program of the guest: finds the disk, and goes on there. What a kernel has built in is no module beside us.
busybox mount -t devtmpfs none /dev
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk \
    crc16 mbcache jbd2 crc32c_generic ext4 overlay \
    libcrc32c nfnetlink nf_tables nf_defrag_ipv4 nf_defrag_ipv6 nf_tproxy_ipv4 nf_tproxy_ipv6 nft_tproxy; do
    [ ! -e /$module.ko ] || busybox insmod /$module.ko
done
busybox mount -t ext4 /dev/vda /root || busybox poweroff -f
exec busybox switch_root /root /vm/init.sh

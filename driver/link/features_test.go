package link

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readFeatures reads checksum and TSO offload of a link of the thread's namespace.
func readFeatures(name string) (values [2]uint32, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return values, err
	}
	defer unix.Close(fd)
	for i, cmd := range []uint32{unix.ETHTOOL_GTXCSUM, unix.ETHTOOL_GTSO} {
		value := struct{ cmd, data uint32 }{cmd, 0}
		var req struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(req.name[:], name)
		req.data = unsafe.Pointer(&value)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
		runtime.KeepAlive(&value)
		if errno != 0 {
			return values, errno
		}
		values[i] = value.data
	}
	return values, nil
}

package clock

const symbol = "__vdso_clock_gettime"

// code is clock_gettime(edi, rsi) with the system call itself; to CLOCK_REALTIME,
// which is 0, it adds the seconds that stand behind it.
var code = []byte{
	0xb8, 0xe4, 0, 0, 0, // mov eax, 228
	0x0f, 0x05, // syscall
	0x85, 0xff, // test edi, edi
	0x75, 0x0a, // jnz to ret
	0x48, 0x8b, 0x0d, 6, 0, 0, 0, // mov rcx, [rip+6]
	0x48, 0x01, 0x0e, // add [rsi], rcx
	0xc3,       // ret
	0x90, 0x90, // to a multiple of 8
}

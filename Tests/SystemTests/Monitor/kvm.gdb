# What gdb does with Guests/reader.asm under KVM; SOCKET is put in by the test.
set pagination off
set confirm off
set remotetimeout 30
set architecture i386:x86-64
target remote SOCKET
info threads
hbreak *$rip
set var $place = $rip
stepi
printf "stepped: %d\n", $rip != $place && $rip - $place + 16 < 32
set var $before = *(unsigned *)0x500
continue
printf "hit again: %d\n", $rip == $place
printf "once around: %d\n", *(unsigned *)0x500 == $before + 1 || *(unsigned *)0x500 == $before
info registers rip
monitor info registers
delete
break *$rip
continue
printf "software: %d\n", $rip == $place
hbreak *0x1000
hbreak *0x2000
hbreak *0x3000
hbreak *0x4000
python
try:
    gdb.execute("continue")
except gdb.error as error:
    print(error)
end
delete
set var $rbx = 0x12345678
printf "rbx = 0x%lx\n", $rbx
set var $count = *(unsigned *)0x500
detach
shell sleep 1
target remote SOCKET
printf "went on: %d\n", *(unsigned *)0x500 != $count
detach
quit

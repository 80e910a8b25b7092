// SPDX-License-Identifier: Apache-2.0

import Foundation
import LinuxSystem
import MachineFile
import Supervisor
import Testing

/// Opens a machine's resources and returns the error, or nothing.
private func refusal(_ text: String, in scratch: Scratch) throws -> LaunchError? {
  let parsed = try scratch.parse("name = \"m\"\n[monitor]\ncontrol = \"unix:c.sock\"\n" + text)
  do throws(LaunchError) {
    let resources = try HostResources(parsed, host: HostProbe())
    resources.control.remove()
    return nil
  } catch {
    return error
  }
}

private func drive(_ image: String, _ more: String = "") -> String {
  "[[drive]]\nslot = \"ide0.0\"\nimage = \"\(image)\"\nformat = \"raw\"\n\(more)"
}

private let qemuIO = ["/usr/bin/qemu-io"].first { FileManager.default.fileExists(atPath: $0) }

@Suite("Host resources", .enabled(if: hasKVM && hasSeaBIOS), .serialized)
struct ResourceTests {
  @Test("a host without KVM is refused with what to do")
  func noKVM() throws {
    let scratch = try Scratch()
    let parsed = try scratch.parse("name = \"m\"\n[machine]\naccelerator = \"kvm\"\n")
    let host = HostProbe(kvmPath: "\(scratch.path)/no-kvm")
    let error = #expect(throws: LaunchError.self) { try parsed.check(host) }
    #expect(error?.code == 1)
    #expect(
      error?.message
        == "\(scratch.path)/machine.toml:3:15: machine.accelerator: there is no /dev/kvm; "
        + "load the kernel's kvm module or allow nested virtualisation; "
        + "or take another accelerator: auto, soft")
  }

  @Test("a /dev/kvm that is something else is refused with the reason")
  func notKVM() throws {
    let scratch = try Scratch()
    let parsed = try scratch.parse("name = \"m\"\n[machine]\naccelerator = \"kvm\"\n")
    let error = #expect(throws: LaunchError.self) {
      try parsed.check(HostProbe(kvmPath: "/dev/null"))
    }
    #expect(error?.message.contains("/dev/kvm cannot be used: KVM refused") == true)
  }

  @Test("a missing image is named with its place")
  func missingImage() throws {
    let scratch = try Scratch()
    let error = try refusal(drive("none.img"), in: scratch)
    #expect(
      error
        == LaunchError(
          "\(scratch.path)/machine.toml:6:9: drive[0].image: \"\(scratch.path)/none.img\" does "
            + "not exist; accepted: the path of a raw image"))
  }

  @Test(
    "firmware of an odd size is refused",
    arguments: [(1000, "1000"), (65536 * 65, "4259840"), (0, "0")])
  func firmwareSize(byteCount: Int, text: String) throws {
    let scratch = try Scratch()
    try scratch.write("bios.bin", [UInt8](repeating: 0, count: byteCount))
    let error = try refusal("[machine]\nfirmware = \"./bios.bin\"\n", in: scratch)
    #expect(error?.message.contains("has \(text) bytes; accepted: a multiple of 64 KiB") == true)
  }

  @Test("firmware of 128 KiB is accepted")
  func firmwareAccepted() throws {
    let scratch = try Scratch()
    try scratch.write("bios.bin", [UInt8](repeating: 0, count: 131072))
    #expect(try refusal("[machine]\nfirmware = \"./bios.bin\"\n", in: scratch) == nil)
  }

  @Test("two machines may read one image, but none may write it then")
  func sharing() throws {
    let scratch = try Scratch()
    let path = try scratch.write("a.img", [UInt8](repeating: 1, count: 512))
    let reader = try Files.open(path, .readOnly)
    try ImageLock.take(reader, isReadOnly: true)
    #expect(try refusal(drive("a.img", "readonly = true\n"), in: scratch) == nil)
    let error = try refusal(drive("a.img"), in: scratch)
    #expect(error?.message.contains("a.img\" is in use by another process") == true)
  }

  @Test("a control socket with nobody behind it is replaced")
  func staleSocket() throws {
    let scratch = try Scratch()
    _ = try PacketSocket.listen("\(scratch.path)/c.sock")
    #expect(try ControlSocket.state("\(scratch.path)/c.sock") == .dead)
    #expect(try refusal("", in: scratch) == nil)
  }

  @Test("a control socket with a machine behind it is left alone")
  func liveSocket() throws {
    let scratch = try Scratch()
    let socket = try PacketSocket.listen("\(scratch.path)/c.sock")
    let error = try refusal("", in: scratch)
    #expect(error?.message.hasPrefix("machine \"m\" is running already") == true)
    #expect(try ControlSocket.state("\(scratch.path)/c.sock") == .live)
    withExtendedLifetime(socket) {}
  }

  @Test("a control socket is for its owner alone, and so is its folder")
  func socketMode() throws {
    let scratch = try Scratch()
    let path = "\(scratch.path)/run/m.sock"
    let socket = try ControlSocket(path, machine: "m", isOwnFolder: true)
    #expect(try Files.status(path)?.mode == 0o600)
    #expect(try Files.status("\(scratch.path)/run")?.mode == 0o700)
    withExtendedLifetime(socket) {}
  }

  @Test("a runtime folder that others may enter is refused")
  func openFolder() throws {
    let scratch = try Scratch()
    let error = #expect(throws: LaunchError.self) {
      try ControlSocket("\(scratch.path)/m.sock", machine: "m", isOwnFolder: true)
    }
    #expect(error?.message.contains("is not this user's own folder with mode 0700") == true)
  }

  @Test("a serial file is emptied, a refused machine leaves it as it is")
  func serialFile() throws {
    let scratch = try Scratch()
    let path = try scratch.write("out.log", "old")
    let serial = "[[serial]]\nbackend = \"file:out.log\"\n"
    _ = try refusal(serial + drive("none.img"), in: scratch)
    #expect(try String(contentsOfFile: path, encoding: .utf8) == "old")
    #expect(try refusal(serial, in: scratch) == nil)
    #expect(try String(contentsOfFile: path, encoding: .utf8) == "")
  }
}

@Suite("Image locks against QEMU", .enabled(if: qemuIO != nil), .serialized)
struct QEMULockTests {
  @Test("an image that QEMU has open for writing is in use", .timeLimit(.minutes(1)))
  func qemuFirst() throws {
    let scratch = try Scratch()
    let path = try scratch.write("a.img", [UInt8](repeating: 1, count: 65536))
    let qemu = try Running(
      qemuIO ?? "", ["-f", "raw", "-c", "read 0 512", "-c", "sleep 20000", path], in: scratch)
    let file = try Files.open(path, .readWrite)
    let end = Date().addingTimeInterval(20)
    while Date() < end, (try? ImageLock.test(file, isReadOnly: true)) != nil { usleep(20_000) }
    #expect(throws: ImageLock.Failure.inUse) { try ImageLock.take(file, isReadOnly: false) }
    #expect(throws: ImageLock.Failure.inUse) { try ImageLock.take(file, isReadOnly: true) }
    withExtendedLifetime(qemu) {}
  }

  @Test(
    "QEMU refuses to write an image that is ours", .timeLimit(.minutes(1)),
    arguments: [true, false])
  func oursFirst(isReadOnly: Bool) throws {
    let scratch = try Scratch()
    let path = try scratch.write("a.img", [UInt8](repeating: 1, count: 65536))
    let file = try Files.open(path, .readWrite)
    try ImageLock.take(file, isReadOnly: isReadOnly)
    let qemu = try Running(qemuIO ?? "", ["-f", "raw", "-c", "write 0 512", path], in: scratch)
    #expect(qemu.wait() == 1)
    #expect(qemu.standardError.contains("Failed to get"))
    withExtendedLifetime(file) {}
  }

  @Test("QEMU may read an image that we only read", .timeLimit(.minutes(1)))
  func bothRead() throws {
    let scratch = try Scratch()
    let path = try scratch.write("a.img", [UInt8](repeating: 1, count: 65536))
    let file = try Files.open(path, .readOnly)
    try ImageLock.take(file, isReadOnly: true)
    let qemu = try Running(
      qemuIO ?? "", ["-r", "-f", "raw", "-c", "read 0 512", path], in: scratch)
    #expect(qemu.wait() == 0)
    withExtendedLifetime(file) {}
  }
}

@Suite("Backing files")
struct BackingFileTests {
  private func files(_ rule: Machine.Drive.Backing, _ scratch: Scratch) throws -> BackingFiles {
    var drive = Machine.Drive(slot: .ide00, image: "\(scratch.path)/top.qcow2", format: .qcow2)
    drive.backing = rule
    return try BackingFiles(drive)
  }

  @Test("the same folder allows a plain name, with or without the folder in front")
  func sameFolder() throws {
    let scratch = try Scratch()
    let path = try scratch.write("base.img", "base")
    let backings = try files(.sameFolder, scratch)
    #expect(try backings.open("base.img", depth: 1).read(4) == Array("base".utf8))
    #expect(try backings.open("./base.img", depth: 1).read(4) == Array("base".utf8))
    #expect(try backings.open(path, depth: 1).read(4) == Array("base".utf8))
  }

  @Test(
    "the same folder allows no way out of it",
    arguments: ["../base.img", "/etc/passwd", "sub/base.img", "..", "", "a\u{0}b", "link.img"])
  func noWayOut(name: String) throws {
    let scratch = try Scratch()
    try scratch.write("base.img", "base")
    try FileManager.default.createSymbolicLink(
      atPath: "\(scratch.path)/link.img", withDestinationPath: "/etc/passwd")
    let backings = try files(.sameFolder, scratch)
    #expect(throws: BackingFiles.Refused.self) { try backings.open(name, depth: 1) }
  }

  @Test("a file system without direct I/O is refused where the drive needs it")
  func noDirectIO() throws {
    let scratch = try Scratch()
    var drive = Machine.Drive(slot: .ide00, image: "\(scratch.path)/top.qcow2", format: .qcow2)
    drive.backing = .paths(["/proc/version"])
    _ = try BackingFiles(drive).open("/proc/version", depth: 1)
    drive.cache = .none
    let error = #expect(throws: BackingFiles.Refused.self) {
      try BackingFiles(drive).open("/proc/version", depth: 1)
    }
    #expect(error?.reason.contains("has no direct I/O (O_DIRECT)") == true)
  }

  @Test("an image on a file system without direct I/O is refused, with the place of the key")
  func noDirectImage() throws {
    let scratch = try Scratch()
    let error = try refusal(
      drive("/sys/kernel/notes", "readonly = true\ncache = \"none\"\n"), in: scratch)
    #expect(error?.message.contains("9:9: drive[0].cache: the file system of") == true)
    #expect(error?.message.contains("accepted: writeback, writethrough") == true)
  }

  @Test("a list allows its files and no others")
  func list() throws {
    let scratch = try Scratch()
    let path = try scratch.write("base.img", "base")
    try scratch.write("other.img", "other")
    let backings = try files(.paths([path]), scratch)
    #expect(try backings.open("base.img", depth: 1).read(4) == Array("base".utf8))
    #expect(try backings.open("x/../base.img", depth: 1).read(4) == Array("base".utf8))
    #expect(throws: BackingFiles.Refused.self) { try backings.open("other.img", depth: 1) }
  }

  @Test("without a rule, beyond the depth, or for a pipe nothing is opened")
  func refused() throws {
    let scratch = try Scratch()
    try scratch.write("base.img", "base")
    // SAFETY: the path lives for the call.
    #expect(unsafe mkfifo("\(scratch.path)/pipe", 0o600) == 0)
    let none = try files(.none, scratch)
    let folder = try files(.sameFolder, scratch)
    #expect(throws: BackingFiles.Refused.self) { try none.open("base.img", depth: 1) }
    #expect(throws: BackingFiles.Refused.self) { try folder.open("base.img", depth: 17) }
    #expect(throws: BackingFiles.Refused.self) { try folder.open("pipe", depth: 1) }
  }

  @Test("a backing file that somebody writes is refused")
  func written() throws {
    let scratch = try Scratch()
    let path = try scratch.write("base.img", "base")
    let writer = try Files.open(path, .readWrite)
    try ImageLock.take(writer, isReadOnly: false)
    let backings = try files(.sameFolder, scratch)
    #expect(
      throws: BackingFiles.Refused("the backing file \"base.img\" is in use by another process")
    ) {
      try backings.open("base.img", depth: 1)
    }
  }
}

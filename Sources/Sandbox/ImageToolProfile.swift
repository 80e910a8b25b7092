// SPDX-License-Identifier: Apache-2.0

internal import LinuxSystem

extension SandboxProfile {
  /// The worker of `vmimage`: images that the tool opened, and its own output.
  public static var imageTool: SandboxProfile {
    var profile = SandboxProfile(
      "image",
      [
        SyscallRule("recvmsg", "files that the tool opened, by the names in images"),
        SyscallRule("sendmsg", "the names in images, for the tool to open"),
        SyscallRule("write", "the output"),
        SyscallRule("preadv2", "bytes of the images"),
        SyscallRule("pwrite64", "bytes of the images"),
        .seldom("fdatasync", "what was written is durable"),
        .seldom("ftruncate", "the length of an image file"),
        .seldom("fallocate", "holes, and space that is reserved"),
        SyscallRule("lseek", "the length of a file, and its holes"),
        SyscallRule(
          "newfstatat", [.equals(argument: 3, 0x1000 /* AT_EMPTY_PATH */)],
          "the kind and the space of a descriptor's file (fstat)"),
        .seldom("mremap", "large tables that grow"),
      ])
    profile.limits.fileSize = nil  // images are as large as they are
    profile.limits.spareDescriptors = 160  // chains of backing files
    profile.limits.addressSpace = 2 << 30
    return profile
  }
}

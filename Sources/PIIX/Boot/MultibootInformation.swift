// SPDX-License-Identifier: Apache-2.0

/// The block that the option ROM puts at 9000h, with what a kernel is told (Multiboot 3.3; for
/// PVH, Xen's hvm_start_info).
///
/// The ROM writes the memory's size and map into it: where the map goes, `mmap_addr` says.
struct MultibootInformation {
  static let address: UInt32 = 0x9000
  private static let modules = 0x60
  private static let startCode = 0x80
  private static let startInfo = 0x100
  private static let startModules = 0x140
  private static let startEntry = 0x178
  private static let memoryMap: UInt32 = 0x180
  private static let strings = 0x580

  private(set) var bytes: [UInt8]
  /// Where the ROM jumps to.
  let entry: UInt32

  init(_ kernel: MultibootKernel, commandLine: String) {
    bytes = [UInt8](repeating: 0, count: Self.strings)
    let isPVH = kernel.startProtocol == .pvh
    entry = isPVH ? Self.address + UInt32(Self.startCode) : kernel.entry
    // GRUB puts the kernel's name before its arguments; PVH's kernels get these alone.
    let line = string(
      isPVH ? commandLine : commandLine.isEmpty ? "kernel" : "kernel \(commandLine)")
    let moduleName = string("initrd")
    let loaderName = string("Bulkhead")
    // Memory, boot device, command line, modules, memory map, loader's name.
    put(1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9, 0)
    put(0x8000_FFFF, 12)
    put(line, 16)
    put(kernel.module.isEmpty ? 0 : 1, 20)
    put(Self.address + UInt32(Self.modules), 24)
    put(Self.address + Self.memoryMap, 0x30)
    put(loaderName, 0x40)
    put(UInt32(truncatingIfNeeded: kernel.module.lowerBound), Self.modules)
    put(UInt32(truncatingIfNeeded: kernel.module.upperBound), Self.modules + 4)
    put(moduleName, Self.modules + 8)
    guard isPVH else { return }
    bytes.replaceSubrange(
      Self.startCode..<Self.startCode + PVHStart.code.count, with: PVHStart.code)
    put(0x336E_C578, Self.startInfo)
    // The version that has the memory map.
    put(1, Self.startInfo + 4)
    put(kernel.module.isEmpty ? 0 : 1, Self.startInfo + 12)
    put(Self.address + UInt32(Self.startModules), Self.startInfo + 16)
    put(line, Self.startInfo + 24)
    put(Self.address + Self.memoryMap + 4, Self.startInfo + 40)
    put(UInt32(truncatingIfNeeded: kernel.module.lowerBound), Self.startModules)
    put(UInt32(truncatingIfNeeded: kernel.module.count), Self.startModules + 8)
    put(kernel.entry, Self.startEntry)
  }

  private mutating func put(_ value: UInt32, _ offset: Int) {
    for lane in 0..<4 {
      bytes[offset + lane] = UInt8(truncatingIfNeeded: value >> UInt32(8 * lane))
    }
  }

  /// Adds a string; its address.
  private mutating func string(_ text: String) -> UInt32 {
    let place = Self.address + UInt32(bytes.count)
    bytes += Array(text.utf8) + [0]
    return place
  }
}

/// The code between the option ROM, which starts a Multiboot kernel, and a kernel of PVH's.
///
/// Tests/PIIXTests/Guests/pvhstart.asm is its source; a test assembles that and compares.
enum PVHStart {
  static let code: [UInt8] = [
    0x8B, 0x4B, 0x2C,  // mov ecx, [ebx + MMAP_LENGTH]
    0x8B, 0x7B, 0x30,  // mov edi, [ebx + MMAP_ADDR]
    0x31, 0xC0,  // xor eax, eax
    0x31, 0xD2,  // xor edx, edx
    0x83, 0xE9, 0x18,  // .entry: sub ecx, 24
    0x72, 0x09,  // jb .counted
    0x89, 0x47, 0x18,  // mov [edi + 24], eax
    0x83, 0xC7, 0x18,  // add edi, 24
    0x42,  // inc edx
    0xEB, 0xF2,  // jmp .entry
    0x89, 0x93, 0x30, 0x01, 0x00, 0x00,  // .counted: mov [ebx + START_INFO + 48], edx
    0xBE, 0x00, 0x00, 0x0E, 0x00,  // mov esi, 0xE0000
    0x81, 0x3E, 0x52, 0x53, 0x44, 0x20,  // .scan: cmp dword [esi], 'RSD '
    0x75, 0x09,  // jne .other
    0x81, 0x7E, 0x04, 0x50, 0x54, 0x52, 0x20,  // cmp dword [esi + 4], 'PTR '
    0x74, 0x0D,  // je .found
    0x83, 0xC6, 0x10,  // .other: add esi, 16
    0x81, 0xFE, 0x00, 0x00, 0x10, 0x00,  // cmp esi, 0x100000
    0x72, 0xE4,  // jb .scan
    0x31, 0xF6,  // xor esi, esi
    0x89, 0xB3, 0x20, 0x01, 0x00, 0x00,  // .found: mov [ebx + START_INFO + 32], esi
    0x8B, 0x8B, 0x78, 0x01, 0x00, 0x00,  // mov ecx, [ebx + ENTRY]
    0x81, 0xC3, 0x00, 0x01, 0x00, 0x00,  // add ebx, START_INFO
    0xFF, 0xE1,  // jmp ecx
  ]
}

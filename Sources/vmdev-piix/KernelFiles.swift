// SPDX-License-Identifier: Apache-2.0

internal import DeviceProtocol
internal import LinuxSystem
internal import PIIX

/// The files of a kernel that is started directly, read as the guest asks for them.
struct KernelFiles {
  private let kernel: Descriptor
  private let initrd: Descriptor?
  private let initrdByteCount: UInt64
  private let loader: [UInt8]
  private let image: BootImage
  private let commandLine: String

  /// Looks at the files that came with the settings: the loader, the kernel, the RAM disk.
  init?(_ settings: PIIXSettings, _ descriptors: [Descriptor]) throws(ProtocolError) {
    guard settings.hasKernel else { return nil }
    let rest = descriptors.dropFirst(settings.hasDebugConsole ? 1 : 0)
    guard rest.count >= (settings.hasInitrd ? 3 : 2), let loader = rest.first else {
      throw ProtocolError("a file of direct boot is missing")
    }
    kernel = rest[rest.startIndex + 1]
    initrd = settings.hasInitrd ? rest[rest.startIndex + 2] : nil
    commandLine = settings.commandLine
    do throws(SystemError) {
      self.loader = try loader.read(65536, at: 0)
      initrdByteCount = try initrd?.size() ?? 0
      let (low, _) = PCTables.splitMemory(settings.memoryByteCount)
      let kernel = kernel
      let file = BootFile(byteCount: try kernel.size()) { offset, count in
        (try? kernel.read(count, at: offset)) ?? []
      }
      do throws(BootProblem) {
        image = try BootImage(file, initrdByteCount: initrdByteCount, memoryBelow4G: low)
      } catch {
        throw SystemError(error.description, 8)
      }
    } catch {
      throw ProtocolError("direct boot: \(error)")
    }
  }

  /// How `bootorder` names the loader.
  var bootPath: String { image.bootPath }

  /// Adds what the loader asks for.
  func offer(in items: inout FwCfgItems) {
    image.offer(
      in: &items, commandLine: commandLine,
      initrdByteCount: UInt32(truncatingIfNeeded: initrdByteCount), loader: loader)
  }

  /// Reads a part of a blob into `memory`; `false` when a file has become shorter.
  func read(_ blob: UInt32, _ offset: UInt64, _ count: Int, into memory: Mapping) -> Bool {
    guard let blob = BootImage.Blob(rawValue: blob) else { return false }
    let pieces = image.pieces(of: blob, in: offset..<offset + UInt64(count))
    if pieces.reduce(0, { $0 + $1.byteCount }) < UInt64(count) {
      memory.fill(0, at: 0, count: count)
    }
    for piece in pieces {
      guard let file = file(piece.source) else { return false }
      let got = try? memory.read(
        from: file, at: piece.fileOffset, count: Int(piece.byteCount),
        to: Int(piece.offset - offset))
      guard got == Int(piece.byteCount) else { return false }
    }
    return true
  }

  /// One byte of a blob, for the data port.
  func byte(_ blob: UInt32, _ offset: UInt32) -> UInt8 {
    guard let blob = BootImage.Blob(rawValue: blob),
      let piece = image.pieces(of: blob, in: UInt64(offset)..<UInt64(offset) + 1).first
    else { return 0 }
    return (try? file(piece.source)?.read(1, at: piece.fileOffset))??.first ?? 0
  }

  private func file(_ source: BootSource) -> Descriptor? { source == .kernel ? kernel : initrd }
}

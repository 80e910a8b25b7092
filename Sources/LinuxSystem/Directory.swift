// SPDX-License-Identifier: Apache-2.0

internal import Glibc

extension Descriptor {
  /// Opens a path below this directory, close-on-exec.
  public func open(_ path: String, _ flags: Int32) throws(SystemError) -> Descriptor {
    // SAFETY: the path is a NUL-terminated copy that outlives the call.
    let result = unsafe openat(raw, path, flags | O_CLOEXEC, 0o644)
    guard result >= 0 else { throw SystemError("open \(path)", errno) }
    return Descriptor(owning: result)
  }

  /// The target of a symbolic link below this directory.
  public func link(_ path: String) throws(SystemError) -> String {
    var length = 0
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 4096) { buffer, filled in
      // SAFETY: the kernel writes at most the buffer's size.
      if let start = buffer.baseAddress {
        length = unsafe start.withMemoryRebound(to: CChar.self, capacity: buffer.count) {
          unsafe readlinkat(raw, path, $0, buffer.count)
        }
      }
      filled = max(0, length)
    }
    guard length >= 0 else { throw SystemError("readlink \(path)", errno) }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Reads from the present position to the end, at most `most` bytes.
  public func readToEnd(most: Int = 1 << 22) throws(SystemError) -> [UInt8] {
    var result: [UInt8] = []
    while result.count < most {
      let more = try read(min(65536, most - result.count))
      if more.isEmpty { break }
      result += more
    }
    return result
  }

  /// The names in a directory, without "." and "..", in the kernel's order.
  public static func entries(of path: String) throws(SystemError) -> [String] {
    // SAFETY: the path is a NUL-terminated copy; the stream is closed on every way out.
    guard let stream = unsafe opendir(path) else { throw SystemError("opendir \(path)", errno) }
    defer { _ = unsafe closedir(stream) }
    var names: [String] = []
    // SAFETY: readdir's entry stays valid until the next call; its name ends with NUL.
    while let entry = unsafe readdir(stream) {
      let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) {
        unsafe String(decoding: $0.prefix { byte in byte != 0 }, as: UTF8.self)
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names
  }
}

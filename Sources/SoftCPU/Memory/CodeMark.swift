// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Which parts of a page hold code that is decoded somewhere, and how often such a part was
/// written.
struct CodeMark {
  /// A bit for each 64 bytes of the page.
  var granules: UInt64
  /// Changes whenever marked bytes are written: blocks decoded before that are void.
  var version: UInt64

  /// A mark in the tables of ``PhysicalMemory``.
  ///
  /// SAFETY: the address is that of a mark in a table that lives as long as the machine's
  /// memory, which every vCPU holds; both words are only accessed atomically.
  @safe
  struct Reference {
    let address: UInt

    @inline(__always)
    private var granules: UnsafeMutablePointer<Atomic<UInt64>> {
      unsafe UnsafeMutablePointer(bitPattern: address).unsafelyUnwrapped
    }

    @inline(__always)
    private var counter: UnsafeMutablePointer<Atomic<UInt64>> {
      unsafe UnsafeMutablePointer(bitPattern: address &+ 8).unsafelyUnwrapped
    }

    @inline(__always)
    var isMarked: Bool { unsafe granules.pointee.load(ordering: .relaxed) != 0 }

    @inline(__always)
    var version: UInt64 { unsafe counter.pointee.load(ordering: .acquiring) }

    private static func mask(_ offset: Int, _ count: Int) -> UInt64 {
      let first = UInt64(offset >> 6)
      let last = UInt64((offset + count - 1) >> 6 & 63)
      return (~0 << first) & (~0 >> (63 - last))
    }

    /// Marks bytes as code; returns whether some were not yet.
    func mark(_ offset: Int, count: Int) -> Bool {
      let mask = Self.mask(offset, count)
      let old = unsafe granules.pointee.bitwiseOr(mask, ordering: .sequentiallyConsistent)
        .oldValue
      return old & mask != mask
    }

    /// Bytes were written; returns whether code was among them.
    ///
    /// All marks of the page are taken away, since all blocks of it are void: what is decoded
    /// again is marked again. Marks go before the version changes, and who decodes reads the
    /// version before it marks, so a block whose mark is lost here has an old version.
    @discardableResult
    func wasWritten(_ offset: Int, count: Int) -> Bool {
      let mask = Self.mask(offset, count)
      guard unsafe granules.pointee.load(ordering: .sequentiallyConsistent) & mask != 0 else {
        return false
      }
      unsafe granules.pointee.store(0, ordering: .sequentiallyConsistent)
      unsafe counter.pointee.wrappingAdd(1, ordering: .sequentiallyConsistent)
      return true
    }
  }
}

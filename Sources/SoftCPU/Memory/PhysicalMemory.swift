// SPDX-License-Identifier: Apache-2.0

internal import Glibc
public import LinuxSystem
internal import Synchronization

/// What the guest's physical addresses mean: RAM, ROM and device memory that software vCPUs
/// reach directly, and which of it holds decoded code.
///
/// All vCPUs of a machine share one. Whoever changes the ranges raises
/// ``Attention/mapChanged`` for every vCPU afterwards.
@safe
public final class PhysicalMemory: @unchecked Sendable {
  // SAFETY: the ranges change under the lock; the code marks are shared words that threads
  // read and write as such; the mappings behind the ranges live as long as this object.

  /// A memory file that ranges show parts of.
  public struct Backing: Sendable {
    let mapping: Mapping
    let marks: UInt
  }

  /// A piece of the physical address space.
  public struct Range: Sendable {
    public var start: UInt64
    public var byteCount: UInt64
    public var backing: Backing
    /// Where the piece starts in the backing.
    public var offset: UInt64
    public var isReadOnly: Bool

    /// - Precondition: everything is whole pages, and inside the backing.
    public init(
      start: UInt64, byteCount: UInt64, backing: Backing, offset: UInt64, isReadOnly: Bool
    ) {
      precondition((start | byteCount | offset) & 0xFFF == 0, "ranges are whole pages")
      precondition(
        offset <= UInt64(backing.mapping.byteCount)
          && byteCount <= UInt64(backing.mapping.byteCount) - offset, "a range past its memory")
      self.start = start
      self.byteCount = byteCount
      self.backing = backing
      self.offset = offset
      self.isReadOnly = isReadOnly
    }
  }

  /// One page as a vCPU sees it.
  struct Page {
    /// The page's address in this process.
    var host: UInt
    /// The address of the page's ``CodeMark``.
    var mark: UInt
    var isReadOnly: Bool
  }

  private let ranges = Mutex<[Range]>([])
  private let backings = Mutex<[Backing]>([])
  /// Counts the changes of the ranges.
  let generation = Atomic<UInt64>(0)
  private let hasSeveralCPUs: Bool
  /// Whether address line 20 is let through; else it reads as zero (the A20 gate).
  private let hasA20 = Atomic<Bool>(true)

  /// - Parameter hasSeveralCPUs: whether more than one thread executes code.
  public init(hasSeveralCPUs: Bool) { self.hasSeveralCPUs = hasSeveralCPUs }

  deinit {
    backings.withLock { backings in
      for backing in backings {
        // SAFETY: each was allocated by `add` and is not used any more.
        unsafe free(UnsafeMutableRawPointer(bitPattern: backing.marks))
      }
    }
  }

  /// Makes a memory known; it stays mapped as long as this object lives.
  ///
  /// - Precondition: the mapping is whole pages.
  public func add(_ mapping: Mapping) -> Backing {
    precondition(mapping.byteCount & 0xFFF == 0, "memory is whole pages")
    // SAFETY: calloc gives zeroed memory for as many marks as there are pages; without any the
    // process has no memory left to go on with.
    let marks = unsafe calloc(mapping.byteCount >> 12, MemoryLayout<CodeMark>.size)
    guard let marks = unsafe marks else { preconditionFailure("no memory for the code marks") }
    let backing = Backing(mapping: mapping, marks: UInt(bitPattern: marks))
    backings.withLock { $0.append(backing) }
    return backing
  }

  /// Whether the A20 gate is open.
  public var isA20Open: Bool { hasA20.load(ordering: .sequentiallyConsistent) }

  /// Opens or closes the A20 gate; counts as a change of the ranges.
  public func setA20(_ isOpen: Bool) { hasA20.store(isOpen, ordering: .sequentiallyConsistent) }

  /// Replaces the ranges; they do not overlap.
  public func setRanges(_ new: [Range]) {
    ranges.withLock { $0 = new }
    generation.wrappingAdd(1, ordering: .sequentiallyConsistent)
  }

  /// The range that a physical address is in, for a vCPU to remember until the map changes.
  func range(_ address: UInt64) -> RangeCache.Range? {
    ranges.withLock { ranges in
      for range in ranges where address >= range.start && address - range.start < range.byteCount {
        let first = Page(
          host: UInt(range.backing.mapping.address + range.offset),
          mark: range.backing.marks
            + UInt(range.offset >> 12) * UInt(MemoryLayout<CodeMark>.size),
          isReadOnly: range.isReadOnly)
        return RangeCache.Range(start: range.start, byteCount: range.byteCount, page: first)
      }
      return nil
    }
  }

  /// Tells that somebody else than a vCPU has written to a backing: decoded code there is void.
  public func wasWritten(_ backing: Backing, offset: Int, count: Int) {
    guard count > 0, offset >= 0, offset < backing.mapping.byteCount else { return }
    let last = min(offset + count, backing.mapping.byteCount) - 1
    for page in (offset >> 12)...(last >> 12) {
      let first = page == offset >> 12 ? offset & 0xFFF : 0
      let end = page == last >> 12 ? last & 0xFFF : 0xFFF
      let mark = CodeMark.Reference(
        address: backing.marks + UInt(page * MemoryLayout<CodeMark>.size))
      mark.wasWritten(first, count: end - first + 1)
    }
  }

  /// Orders what other vCPUs have written before what this one reads, and what they write
  /// later after the marks that this one has set.
  func fenceOthers() {
    if hasSeveralCPUs { Thread.fenceAll() }
  }
}

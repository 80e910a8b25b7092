// SPDX-License-Identifier: Apache-2.0

/// A fixed number of 64-bit registers, reached by number.
///
/// They lie in memory of their own: a read by a variable number out of an `InlineArray` inside a
/// larger struct copies the whole array first (Swift 6.3), ten times the cost of the instruction.
@safe
struct Words<let count: Int>: ~Copyable {
  // SAFETY: `words` is this struct's own memory of `count` words, a power of two; every
  // index is masked.
  private let words: UnsafeMutablePointer<UInt64>

  init() {
    precondition(count.nonzeroBitCount == 1, "not a power of two")
    unsafe words = .allocate(capacity: count)
    unsafe words.initialize(repeating: 0, count: count)
  }

  deinit { unsafe words.deallocate() }

  /// Where the words lie, for code that works on them directly.
  var address: UInt { unsafe UInt(bitPattern: words) }

  @inline(__always)
  subscript(index: Int) -> UInt64 {
    get { unsafe words[index & (count - 1)] }
    nonmutating _modify { yield unsafe &words[index & (count - 1)] }
  }
}

extension Op {
  /// The case of a number that was stored from one.
  @inline(__always)
  static func trusted(_ number: UInt16) -> Op {
    // SAFETY: the cases are numbered from zero in their order, as their tags are, and
    // `Instruction.op` is only ever set from a case; zeroed memory is the first case.
    unsafe unsafeBitCast(number, to: Op.self)
  }
}

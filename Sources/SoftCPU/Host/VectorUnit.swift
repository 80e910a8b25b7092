// SPDX-License-Identifier: Apache-2.0

internal import CHostCPU

/// One vector instruction on its way through the host's processor.
@safe
struct VectorUnit {
  // SAFETY: the frame is a plain structure that the C functions read and write as a whole.
  private var frame = bh_vector_frame()

  var first: (UInt64, UInt64) {
    get { (frame.first.0, frame.first.1) }
    set { frame.first = newValue }
  }
  var second: (UInt64, UInt64) {
    get { (frame.second.0, frame.second.1) }
    set { frame.second = newValue }
  }
  var third: (UInt64, UInt64) {
    get { (frame.third.0, frame.third.1) }
    set { frame.third = newValue }
  }
  var rax: UInt64 {
    get { frame.rax }
    set { frame.rax = newValue }
  }
  var rcx: UInt64 {
    get { frame.rcx }
    set { frame.rcx = newValue }
  }
  var rdx: UInt64 {
    get { frame.rdx }
    set { frame.rdx = newValue }
  }
  var flags: UInt64 { frame.flags }
  var mxcsr: UInt32 {
    get { frame.mxcsr }
    set { frame.mxcsr = newValue }
  }

  init(mxcsr: UInt32) { frame.mxcsr = mxcsr }

  /// `map` 0 is 0F, 1 is 0F 38, 2 is 0F with REX.W.
  mutating func run(_ map: UInt8, _ prefix: UInt8, _ opcode: UInt8) {
    unsafe bh_vector(&frame, UInt32(map), UInt32(prefix), UInt32(opcode))
  }

  mutating func runMMX(_ map: UInt8, _ opcode: UInt8) {
    unsafe bh_mmx(&frame, UInt32(map), UInt32(opcode))
  }

  mutating func run(_ which: bh_immediate, _ immediate: UInt8) {
    unsafe bh_vector_immediate(&frame, which, UInt32(immediate))
  }

  mutating func runMMX(_ which: bh_immediate, _ immediate: UInt8) {
    unsafe bh_mmx_immediate(&frame, which, UInt32(immediate))
  }

  mutating func runSHA256() { unsafe bh_sha256rnds2(&frame) }
}

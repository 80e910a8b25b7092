// SPDX-License-Identifier: Apache-2.0

internal import CLinux
internal import Synchronization

extension Descriptor {
  /// Takes the dirty pages of a memory slot since the last call (KVM_GET_DIRTY_LOG).
  ///
  /// Bit `n % 64` of word `n / 64` stands for page `n` of the slot.
  ///
  /// - Precondition: `bitmap` has a bit for each page of the slot, rounded up to 64.
  public func takeDirtyLog(slot: UInt32, into bitmap: inout [UInt64]) throws(SystemError) {
    // SAFETY: the kernel writes one bit for each page of the slot, rounded up to whole words,
    // which the caller has promised to be the array's length; the array outlives the call.
    let result = unsafe bitmap.withUnsafeMutableBytes { words in
      var log = unsafe kvm_dirty_log()
      unsafe log.slot = slot
      unsafe log.dirty_bitmap = words.baseAddress
      return unsafe withUnsafeMutablePointer(to: &log) {
        unsafe bh_ioctl_pointer(raw, UInt(BH_KVM_GET_DIRTY_LOG), $0)
      }
    }
    _ = try SystemError.check("KVM_GET_DIRTY_LOG", result)
  }
}

extension Mapping {
  /// Replaces a byte that several threads use and returns the old one, in one order with
  /// every other sequentially consistent access.
  @discardableResult
  public func exchange8(_ value: UInt8, at offset: Int) -> UInt8 {
    check(offset, 1)
    // SAFETY: the bounds were checked; Atomic<UInt8> has the layout of UInt8.
    return unsafe (base + offset).assumingMemoryBound(to: Atomic<UInt8>.self).pointee.exchange(
      value, ordering: .sequentiallyConsistent)
  }
}

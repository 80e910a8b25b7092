// SPDX-License-Identifier: Apache-2.0

internal import DeviceModel

extension I8254.Channel: DeviceState {
  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    visitor.field("mode", &mode)
    visitor.field("isBCD", &isBCD)
    visitor.field("access", &access)
    visitor.field("reload", &reload)
    visitor.field("loaded", &loaded)
    visitor.field("writesHigh", &writesHigh)
    visitor.field("readsHigh", &readsHigh)
    visitor.field("low", &low)
    visitor.optional("latched", &latched)
    visitor.optional("status", &status)
    visitor.field("gate", &gate)
    visitor.optional("start", &start)
    visitor.optional("held", &held)
    visitor.optional("written", &written)
    visitor.field("isNull", &isNull)
    visitor.field("hasCount", &hasCount)
    // What no guest can bring about: the smallest harm.
    mode = mode > 5 ? mode & 3 : mode
    access = access & 3 == 0 ? 3 : access & 3
    reload = min(reload, 65535)
    loaded = min(loaded, 65535)
    let most = Int64.max / 4
    for path in [\Self.start, \.held, \.written] {
      self[keyPath: path] = self[keyPath: path].map { min(max($0, -70000), most) }
    }
    held = held.map { max(0, $0) }
  }
}

/// An integer that may be missing, as a truth value and the integer or zero.
private struct OptionalInteger<T: FixedWidthInteger>: DeviceState {
  var value: T?

  mutating func visitState<V: StateVisitor>(_ visitor: inout V) {
    var isThere = value != nil
    var integer = value ?? 0
    visitor.field("has", &isThere)
    visitor.field("value", &integer)
    value = isThere ? integer : nil
  }
}

extension StateVisitor {
  /// Visits an integer that may be missing; it has a part of its own, so that its names are.
  mutating func optional<T: FixedWidthInteger>(_ name: StaticString, _ value: inout T?) {
    var integer = OptionalInteger(value: value)
    part(name, &integer)
    value = integer.value
  }
}

/// An integer of several that have one name.
struct NumberedInteger: DeviceState {
  var value: UInt64

  mutating func visitState<V: StateVisitor>(_ visitor: inout V) { visitor.field("value", &value) }
}

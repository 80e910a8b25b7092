// SPDX-License-Identifier: Apache-2.0

import DeviceProtocol
import Testing

@testable import MachineCore

@Suite struct DeviceGrantsTests {
  static func grants(_ role: String, exitPort: UInt32 = 0x10000) throws -> DeviceGrants {
    try #require(DeviceGrants.role(role, exitPort: exitPort))
  }

  static func allows(_ role: String, _ claims: Claims) -> Bool {
    do throws(ProtocolError) {
      try DeviceGrants.role(role, exitPort: 0xF4)?.check(claims)
      return true
    } catch {
      return false
    }
  }

  static let roles = ["piix", "ide", "serial", "vga", "example"]

  @Test(arguments: roles)
  func `Every range of a role is granted to it, and not a port more`(role: String) throws {
    let grants = try Self.grants(role)
    for range in grants.ports {
      let count = range.upperBound - range.lowerBound + 1
      func claim(_ base: UInt16, _ count: UInt16) -> Claims {
        Claims(ports: [PortClaim(region: 0, base: base, count: count)])
      }
      #expect(Self.allows(role, claim(range.lowerBound, count)))
      if range.lowerBound > 0 {
        #expect(!Self.allows(role, claim(range.lowerBound - 1, count + 1)))
      }
      #expect(!Self.allows(role, claim(range.lowerBound, count + 1)))
    }
    #expect(!Self.allows(role, Claims(ports: [PortClaim(region: 0, base: 0, count: 0)])))
    #expect(!Self.allows(role, Claims(ports: [PortClaim(region: 0, base: 0xFFFF, count: 2)])))
    #expect(!Self.allows(role, Claims(ports: [PortClaim(region: 0, base: 0xFFFF, count: 0)])))
  }

  @Test func `No two roles are granted the same`() throws {
    for (index, first) in Self.roles.enumerated() {
      for second in Self.roles.dropFirst(index + 1) {
        let a = try Self.grants(first)
        let b = try Self.grants(second)
        #expect(!a.ports.contains { range in b.ports.contains { $0.overlaps(range) } })
        #expect(Set(a.functions).isDisjoint(with: b.functions))
        #expect(Set(a.interrupts).isDisjoint(with: b.interrupts))
      }
    }
    #expect(DeviceGrants.role("IDE", exitPort: 0x10000) == nil)
    #expect(DeviceGrants.role("", exitPort: 0x10000) == nil)
  }

  @Test func `The debug exit port is granted where the machine has one`() throws {
    let claim = Claims(ports: [PortClaim(region: 0, base: 0xF4, count: 4)])
    #expect(Self.allows("piix", claim))
    #expect(throws: ProtocolError.self) { try Self.grants("piix").check(claim) }
    #expect(try Self.grants("piix", exitPort: 0xFFFE).ports.contains(0xFFFE...0xFFFE))
  }

  @Test func `Only piix moves ports, and few at a time`() {
    let claim = { Claims(ports: [PortClaim(region: 0, base: 0, count: $0, isMovable: true)]) }
    #expect(Self.roles.filter { Self.allows($0, claim(64)) } == ["piix"])
    #expect(!Self.allows("piix", claim(65)))
  }

  @Test func `Memory, functions, interrupts and buffers are those of the role`() {
    func roles(_ claims: Claims) -> [String] { Self.roles.filter { Self.allows($0, claims) } }
    func memory(_ base: UInt64, _ count: UInt64) -> Claims {
      Claims(memories: [MemoryClaim(region: 0, base: base, byteCount: count)])
    }
    #expect(roles(memory(0xA0000, 0x20000)) == ["vga"])
    #expect(roles(memory(0xA0000, 0x20001)) == [])
    #expect(roles(memory(0x9FFFF, 2)) == [])
    #expect(roles(memory(0xA0000, 0)) == [])
    #expect(roles(memory(0xA0000, .max)) == [])
    for (devfn, role) in [(0x08, "piix"), (0x0B, "piix"), (0x09, "ide"), (0x10, "vga")] {
      let claim = FunctionClaim(
        devfn: UInt8(devfn), region: 0, vendor: 1, device: 1, classCode: 0, revision: 0)
      #expect(roles(Claims(functions: [claim])) == [role])
    }
    let bridge = FunctionClaim(
      devfn: 0, region: 0, vendor: 1, device: 1, classCode: 0, revision: 0)
    #expect(roles(Claims(functions: [bridge])) == [])
    for (line, role) in [(1, "piix"), (14, "ide"), (3, "serial"), (5, "example")] {
      #expect(roles(Claims(lines: [LineClaim(interrupt: UInt8(line))])) == [role])
    }
    #expect(roles(Claims(lines: [LineClaim(interrupt: 0)])) == [])
    #expect(roles(Claims(bounceByteCount: 4096)) == ["piix", "ide"])
    #expect(roles(Claims(bounceByteCount: 16 << 20)) == ["ide"])
    #expect(
      roles(Claims(backings: [BackingClaim(memory: 0, kind: .readWrite, byteCount: 4096)]))
        == ["vga"])
  }

  @Test func `A DMA descriptor is granted only where the guest starts transfers`() {
    #expect(Self.allows("ide", FakeDevice.ideClaims))
    func ide(_ change: (inout Claims) -> Void) -> Bool {
      var claims = FakeDevice.ideClaims
      claims.ports = [PortClaim(region: 1, base: 0x1F0, count: 8)]
      change(&claims)
      return Self.allows("ide", claims)
    }
    #expect(ide { _ in })
    #expect(!ide { $0.descriptors[0].region = 1 })
    #expect(!ide { $0.descriptors[0].region = 10 })
    #expect(!ide { $0.descriptors[0].offset = 4 })
    #expect(!ide { $0.descriptors[0].offset = 16 })
    #expect(!ide { $0.descriptors[0].offset = .max - 8 })
    #expect(!ide { $0.descriptors[0].kind = .fwCfg })
    #expect(!ide { $0.descriptors[0].devfn = 0xFF })
    #expect(!ide { $0.descriptors[0].devfn = 8 })
    func fwCfg(_ base: UInt16, _ offset: UInt32, devfn: UInt8 = 0xFF) -> Claims {
      Claims(
        ports: [PortClaim(region: 0, base: base, count: 12)],
        descriptors: [
          DescriptorClaim(window: 0, kind: .fwCfg, region: 0, offset: offset, devfn: devfn)
        ])
    }
    #expect(Self.allows("piix", fwCfg(0x510, 4)))
    #expect(!Self.allows("piix", fwCfg(0x510, 0)))
    #expect(!Self.allows("piix", fwCfg(0x510, 8)))
    #expect(!Self.allows("piix", fwCfg(0x510, 4, devfn: 8)))
    #expect(!Self.allows("piix", fwCfg(0xC0, 0)))
  }
}

// SPDX-License-Identifier: Apache-2.0

extension SoftCPU {
  /// Executes the decoded instructions from a place on, to the end of their block.
  ///
  /// It returns early when ``leavesBlock`` is set. On a fault RIP is that of the instruction
  /// again, unless the fault is a trap.
  mutating func executeBlock(_ start: Int) throws(Fault) {
    var position = start
    defer { instructionCount &+= UInt64(truncatingIfNeeded: position &- start) }
    repeat {
      let i = code[position]
      position &+= 1
      rip &+= UInt64(i.length)
      do throws(Fault) {
        switch i.op {
        case .endOfBlock:
          position &-= 1
          return
        case .addRR8: aluRR(.add, UInt8.self, i)
        case .addRR16: aluRR(.add, UInt16.self, i)
        case .addRR32: aluRR(.add, UInt32.self, i)
        case .addRR64: aluRR(.add, UInt64.self, i)
        case .addRM8: try aluRM(.add, UInt8.self, i)
        case .addRM16: try aluRM(.add, UInt16.self, i)
        case .addRM32: try aluRM(.add, UInt32.self, i)
        case .addRM64: try aluRM(.add, UInt64.self, i)
        case .addMR8: try aluMR(.add, UInt8.self, i)
        case .addMR16: try aluMR(.add, UInt16.self, i)
        case .addMR32: try aluMR(.add, UInt32.self, i)
        case .addMR64: try aluMR(.add, UInt64.self, i)
        case .addRI8: aluRI(.add, UInt8.self, i)
        case .addRI16: aluRI(.add, UInt16.self, i)
        case .addRI32: aluRI(.add, UInt32.self, i)
        case .addRI64: aluRI(.add, UInt64.self, i)
        case .addMI8: try aluMI(.add, UInt8.self, i)
        case .addMI16: try aluMI(.add, UInt16.self, i)
        case .addMI32: try aluMI(.add, UInt32.self, i)
        case .addMI64: try aluMI(.add, UInt64.self, i)
        case .orRR8: aluRR(.or, UInt8.self, i)
        case .orRR16: aluRR(.or, UInt16.self, i)
        case .orRR32: aluRR(.or, UInt32.self, i)
        case .orRR64: aluRR(.or, UInt64.self, i)
        case .orRM8: try aluRM(.or, UInt8.self, i)
        case .orRM16: try aluRM(.or, UInt16.self, i)
        case .orRM32: try aluRM(.or, UInt32.self, i)
        case .orRM64: try aluRM(.or, UInt64.self, i)
        case .orMR8: try aluMR(.or, UInt8.self, i)
        case .orMR16: try aluMR(.or, UInt16.self, i)
        case .orMR32: try aluMR(.or, UInt32.self, i)
        case .orMR64: try aluMR(.or, UInt64.self, i)
        case .orRI8: aluRI(.or, UInt8.self, i)
        case .orRI16: aluRI(.or, UInt16.self, i)
        case .orRI32: aluRI(.or, UInt32.self, i)
        case .orRI64: aluRI(.or, UInt64.self, i)
        case .orMI8: try aluMI(.or, UInt8.self, i)
        case .orMI16: try aluMI(.or, UInt16.self, i)
        case .orMI32: try aluMI(.or, UInt32.self, i)
        case .orMI64: try aluMI(.or, UInt64.self, i)
        case .adcRR8: aluRR(.adc, UInt8.self, i)
        case .adcRR16: aluRR(.adc, UInt16.self, i)
        case .adcRR32: aluRR(.adc, UInt32.self, i)
        case .adcRR64: aluRR(.adc, UInt64.self, i)
        case .adcRM8: try aluRM(.adc, UInt8.self, i)
        case .adcRM16: try aluRM(.adc, UInt16.self, i)
        case .adcRM32: try aluRM(.adc, UInt32.self, i)
        case .adcRM64: try aluRM(.adc, UInt64.self, i)
        case .adcMR8: try aluMR(.adc, UInt8.self, i)
        case .adcMR16: try aluMR(.adc, UInt16.self, i)
        case .adcMR32: try aluMR(.adc, UInt32.self, i)
        case .adcMR64: try aluMR(.adc, UInt64.self, i)
        case .adcRI8: aluRI(.adc, UInt8.self, i)
        case .adcRI16: aluRI(.adc, UInt16.self, i)
        case .adcRI32: aluRI(.adc, UInt32.self, i)
        case .adcRI64: aluRI(.adc, UInt64.self, i)
        case .adcMI8: try aluMI(.adc, UInt8.self, i)
        case .adcMI16: try aluMI(.adc, UInt16.self, i)
        case .adcMI32: try aluMI(.adc, UInt32.self, i)
        case .adcMI64: try aluMI(.adc, UInt64.self, i)
        case .sbbRR8: aluRR(.sbb, UInt8.self, i)
        case .sbbRR16: aluRR(.sbb, UInt16.self, i)
        case .sbbRR32: aluRR(.sbb, UInt32.self, i)
        case .sbbRR64: aluRR(.sbb, UInt64.self, i)
        case .sbbRM8: try aluRM(.sbb, UInt8.self, i)
        case .sbbRM16: try aluRM(.sbb, UInt16.self, i)
        case .sbbRM32: try aluRM(.sbb, UInt32.self, i)
        case .sbbRM64: try aluRM(.sbb, UInt64.self, i)
        case .sbbMR8: try aluMR(.sbb, UInt8.self, i)
        case .sbbMR16: try aluMR(.sbb, UInt16.self, i)
        case .sbbMR32: try aluMR(.sbb, UInt32.self, i)
        case .sbbMR64: try aluMR(.sbb, UInt64.self, i)
        case .sbbRI8: aluRI(.sbb, UInt8.self, i)
        case .sbbRI16: aluRI(.sbb, UInt16.self, i)
        case .sbbRI32: aluRI(.sbb, UInt32.self, i)
        case .sbbRI64: aluRI(.sbb, UInt64.self, i)
        case .sbbMI8: try aluMI(.sbb, UInt8.self, i)
        case .sbbMI16: try aluMI(.sbb, UInt16.self, i)
        case .sbbMI32: try aluMI(.sbb, UInt32.self, i)
        case .sbbMI64: try aluMI(.sbb, UInt64.self, i)
        case .andRR8: aluRR(.and, UInt8.self, i)
        case .andRR16: aluRR(.and, UInt16.self, i)
        case .andRR32: aluRR(.and, UInt32.self, i)
        case .andRR64: aluRR(.and, UInt64.self, i)
        case .andRM8: try aluRM(.and, UInt8.self, i)
        case .andRM16: try aluRM(.and, UInt16.self, i)
        case .andRM32: try aluRM(.and, UInt32.self, i)
        case .andRM64: try aluRM(.and, UInt64.self, i)
        case .andMR8: try aluMR(.and, UInt8.self, i)
        case .andMR16: try aluMR(.and, UInt16.self, i)
        case .andMR32: try aluMR(.and, UInt32.self, i)
        case .andMR64: try aluMR(.and, UInt64.self, i)
        case .andRI8: aluRI(.and, UInt8.self, i)
        case .andRI16: aluRI(.and, UInt16.self, i)
        case .andRI32: aluRI(.and, UInt32.self, i)
        case .andRI64: aluRI(.and, UInt64.self, i)
        case .andMI8: try aluMI(.and, UInt8.self, i)
        case .andMI16: try aluMI(.and, UInt16.self, i)
        case .andMI32: try aluMI(.and, UInt32.self, i)
        case .andMI64: try aluMI(.and, UInt64.self, i)
        case .subRR8: aluRR(.sub, UInt8.self, i)
        case .subRR16: aluRR(.sub, UInt16.self, i)
        case .subRR32: aluRR(.sub, UInt32.self, i)
        case .subRR64: aluRR(.sub, UInt64.self, i)
        case .subRM8: try aluRM(.sub, UInt8.self, i)
        case .subRM16: try aluRM(.sub, UInt16.self, i)
        case .subRM32: try aluRM(.sub, UInt32.self, i)
        case .subRM64: try aluRM(.sub, UInt64.self, i)
        case .subMR8: try aluMR(.sub, UInt8.self, i)
        case .subMR16: try aluMR(.sub, UInt16.self, i)
        case .subMR32: try aluMR(.sub, UInt32.self, i)
        case .subMR64: try aluMR(.sub, UInt64.self, i)
        case .subRI8: aluRI(.sub, UInt8.self, i)
        case .subRI16: aluRI(.sub, UInt16.self, i)
        case .subRI32: aluRI(.sub, UInt32.self, i)
        case .subRI64: aluRI(.sub, UInt64.self, i)
        case .subMI8: try aluMI(.sub, UInt8.self, i)
        case .subMI16: try aluMI(.sub, UInt16.self, i)
        case .subMI32: try aluMI(.sub, UInt32.self, i)
        case .subMI64: try aluMI(.sub, UInt64.self, i)
        case .xorRR8: aluRR(.xor, UInt8.self, i)
        case .xorRR16: aluRR(.xor, UInt16.self, i)
        case .xorRR32: aluRR(.xor, UInt32.self, i)
        case .xorRR64: aluRR(.xor, UInt64.self, i)
        case .xorRM8: try aluRM(.xor, UInt8.self, i)
        case .xorRM16: try aluRM(.xor, UInt16.self, i)
        case .xorRM32: try aluRM(.xor, UInt32.self, i)
        case .xorRM64: try aluRM(.xor, UInt64.self, i)
        case .xorMR8: try aluMR(.xor, UInt8.self, i)
        case .xorMR16: try aluMR(.xor, UInt16.self, i)
        case .xorMR32: try aluMR(.xor, UInt32.self, i)
        case .xorMR64: try aluMR(.xor, UInt64.self, i)
        case .xorRI8: aluRI(.xor, UInt8.self, i)
        case .xorRI16: aluRI(.xor, UInt16.self, i)
        case .xorRI32: aluRI(.xor, UInt32.self, i)
        case .xorRI64: aluRI(.xor, UInt64.self, i)
        case .xorMI8: try aluMI(.xor, UInt8.self, i)
        case .xorMI16: try aluMI(.xor, UInt16.self, i)
        case .xorMI32: try aluMI(.xor, UInt32.self, i)
        case .xorMI64: try aluMI(.xor, UInt64.self, i)
        case .cmpRR8: aluRR(.cmp, UInt8.self, i)
        case .cmpRR16: aluRR(.cmp, UInt16.self, i)
        case .cmpRR32: aluRR(.cmp, UInt32.self, i)
        case .cmpRR64: aluRR(.cmp, UInt64.self, i)
        case .cmpRM8: try aluRM(.cmp, UInt8.self, i)
        case .cmpRM16: try aluRM(.cmp, UInt16.self, i)
        case .cmpRM32: try aluRM(.cmp, UInt32.self, i)
        case .cmpRM64: try aluRM(.cmp, UInt64.self, i)
        case .cmpMR8: try aluMR(.cmp, UInt8.self, i)
        case .cmpMR16: try aluMR(.cmp, UInt16.self, i)
        case .cmpMR32: try aluMR(.cmp, UInt32.self, i)
        case .cmpMR64: try aluMR(.cmp, UInt64.self, i)
        case .cmpRI8: aluRI(.cmp, UInt8.self, i)
        case .cmpRI16: aluRI(.cmp, UInt16.self, i)
        case .cmpRI32: aluRI(.cmp, UInt32.self, i)
        case .cmpRI64: aluRI(.cmp, UInt64.self, i)
        case .cmpMI8: try aluMI(.cmp, UInt8.self, i)
        case .cmpMI16: try aluMI(.cmp, UInt16.self, i)
        case .cmpMI32: try aluMI(.cmp, UInt32.self, i)
        case .cmpMI64: try aluMI(.cmp, UInt64.self, i)
        case .testRR8: setLogicFlags(get(i.rm, UInt8.self) & get(i.reg, UInt8.self))
        case .testRI8: setLogicFlags(get(i.rm, UInt8.self) & UInt8(truncatingIfNeeded: i.immediate))
        case .testMR8: setLogicFlags(try loadOperand(UInt8.self, i) & get(i.reg, UInt8.self))
        case .testMI8:
          setLogicFlags(try loadOperand(UInt8.self, i) & UInt8(truncatingIfNeeded: i.immediate))
        case .movRR8: put(i.rm, get(i.reg, UInt8.self))
        case .movRM8: put(i.reg, try loadOperand(UInt8.self, i))
        case .movMR8: try storeOperand(get(i.reg, UInt8.self), i)
        case .movRI8: put(i.rm, UInt8(truncatingIfNeeded: i.immediate))
        case .movMI8: try storeOperand(UInt8(truncatingIfNeeded: i.immediate), i)
        case .incR8: put(i.rm, increment(get(i.rm, UInt8.self)))
        case .decR8: put(i.rm, decrement(get(i.rm, UInt8.self)))
        case .negR8: put(i.rm, negate(get(i.rm, UInt8.self)))
        case .notR8: put(i.rm, ~get(i.rm, UInt8.self))
        case .testRR16: setLogicFlags(get(i.rm, UInt16.self) & get(i.reg, UInt16.self))
        case .testRI16:
          setLogicFlags(get(i.rm, UInt16.self) & UInt16(truncatingIfNeeded: i.immediate))
        case .testMR16: setLogicFlags(try loadOperand(UInt16.self, i) & get(i.reg, UInt16.self))
        case .testMI16:
          setLogicFlags(try loadOperand(UInt16.self, i) & UInt16(truncatingIfNeeded: i.immediate))
        case .movRR16: put(i.rm, get(i.reg, UInt16.self))
        case .movRM16: put(i.reg, try loadOperand(UInt16.self, i))
        case .movMR16: try storeOperand(get(i.reg, UInt16.self), i)
        case .movRI16: put(i.rm, UInt16(truncatingIfNeeded: i.immediate))
        case .movMI16: try storeOperand(UInt16(truncatingIfNeeded: i.immediate), i)
        case .incR16: put(i.rm, increment(get(i.rm, UInt16.self)))
        case .decR16: put(i.rm, decrement(get(i.rm, UInt16.self)))
        case .negR16: put(i.rm, negate(get(i.rm, UInt16.self)))
        case .notR16: put(i.rm, ~get(i.rm, UInt16.self))
        case .testRR32: setLogicFlags(get(i.rm, UInt32.self) & get(i.reg, UInt32.self))
        case .testRI32:
          setLogicFlags(get(i.rm, UInt32.self) & UInt32(truncatingIfNeeded: i.immediate))
        case .testMR32: setLogicFlags(try loadOperand(UInt32.self, i) & get(i.reg, UInt32.self))
        case .testMI32:
          setLogicFlags(try loadOperand(UInt32.self, i) & UInt32(truncatingIfNeeded: i.immediate))
        case .movRR32: put(i.rm, get(i.reg, UInt32.self))
        case .movRM32: put(i.reg, try loadOperand(UInt32.self, i))
        case .movMR32: try storeOperand(get(i.reg, UInt32.self), i)
        case .movRI32: put(i.rm, UInt32(truncatingIfNeeded: i.immediate))
        case .movMI32: try storeOperand(UInt32(truncatingIfNeeded: i.immediate), i)
        case .incR32: put(i.rm, increment(get(i.rm, UInt32.self)))
        case .decR32: put(i.rm, decrement(get(i.rm, UInt32.self)))
        case .negR32: put(i.rm, negate(get(i.rm, UInt32.self)))
        case .notR32: put(i.rm, ~get(i.rm, UInt32.self))
        case .testRR64: setLogicFlags(get(i.rm, UInt64.self) & get(i.reg, UInt64.self))
        case .testRI64:
          setLogicFlags(get(i.rm, UInt64.self) & UInt64(truncatingIfNeeded: i.immediate))
        case .testMR64: setLogicFlags(try loadOperand(UInt64.self, i) & get(i.reg, UInt64.self))
        case .testMI64:
          setLogicFlags(try loadOperand(UInt64.self, i) & UInt64(truncatingIfNeeded: i.immediate))
        case .movRR64: put(i.rm, get(i.reg, UInt64.self))
        case .movRM64: put(i.reg, try loadOperand(UInt64.self, i))
        case .movMR64: try storeOperand(get(i.reg, UInt64.self), i)
        case .movRI64: put(i.rm, UInt64(truncatingIfNeeded: i.immediate))
        case .movMI64: try storeOperand(UInt64(truncatingIfNeeded: i.immediate), i)
        case .incR64: put(i.rm, increment(get(i.rm, UInt64.self)))
        case .decR64: put(i.rm, decrement(get(i.rm, UInt64.self)))
        case .negR64: put(i.rm, negate(get(i.rm, UInt64.self)))
        case .notR64: put(i.rm, ~get(i.rm, UInt64.self))
        case .lea16: put(i.reg, UInt16(truncatingIfNeeded: offset(i)))
        case .lea32: put(i.reg, UInt32(truncatingIfNeeded: offset(i)))
        case .lea64: put(i.reg, UInt64(truncatingIfNeeded: offset(i)))
        case .movzx8R16: put(i.reg, UInt16(reg8(i.rm)))
        case .movzx8M16: put(i.reg, UInt16(try loadOperand(UInt8.self, i)))
        case .movsx8R16: put(i.reg, UInt16(truncatingIfNeeded: Int8(bitPattern: reg8(i.rm))))
        case .movsx8M16:
          put(i.reg, UInt16(truncatingIfNeeded: Int8(bitPattern: try loadOperand(UInt8.self, i))))
        case .movzx8R32: put(i.reg, UInt32(reg8(i.rm)))
        case .movzx8M32: put(i.reg, UInt32(try loadOperand(UInt8.self, i)))
        case .movsx8R32: put(i.reg, UInt32(truncatingIfNeeded: Int8(bitPattern: reg8(i.rm))))
        case .movsx8M32:
          put(i.reg, UInt32(truncatingIfNeeded: Int8(bitPattern: try loadOperand(UInt8.self, i))))
        case .movzx8R64: put(i.reg, UInt64(reg8(i.rm)))
        case .movzx8M64: put(i.reg, UInt64(try loadOperand(UInt8.self, i)))
        case .movsx8R64: put(i.reg, UInt64(truncatingIfNeeded: Int8(bitPattern: reg8(i.rm))))
        case .movsx8M64:
          put(i.reg, UInt64(truncatingIfNeeded: Int8(bitPattern: try loadOperand(UInt8.self, i))))
        case .movzx16R32: put(i.reg, UInt32(reg16(i.rm)))
        case .movzx16M32: put(i.reg, UInt32(try loadOperand(UInt16.self, i)))
        case .movsx16R32: put(i.reg, UInt32(truncatingIfNeeded: Int16(bitPattern: reg16(i.rm))))
        case .movsx16M32:
          put(i.reg, UInt32(truncatingIfNeeded: Int16(bitPattern: try loadOperand(UInt16.self, i))))
        case .movzx16R64: put(i.reg, UInt64(reg16(i.rm)))
        case .movzx16M64: put(i.reg, UInt64(try loadOperand(UInt16.self, i)))
        case .movsx16R64: put(i.reg, UInt64(truncatingIfNeeded: Int16(bitPattern: reg16(i.rm))))
        case .movsx16M64:
          put(i.reg, UInt64(truncatingIfNeeded: Int16(bitPattern: try loadOperand(UInt16.self, i))))
        case .movsxdR64: put(i.reg, UInt64(truncatingIfNeeded: Int32(bitPattern: reg32(i.rm))))
        case .movsxdM64:
          put(
            i.reg, UInt64(truncatingIfNeeded: Int32(bitPattern: try loadOperand(UInt32.self, i))))
        case .shlRI16: shiftLeft(UInt16.self, i)
        case .shlRI32: shiftLeft(UInt32.self, i)
        case .shlRI64: shiftLeft(UInt64.self, i)
        case .shrRI16: shiftRight(UInt16.self, i)
        case .shrRI32: shiftRight(UInt32.self, i)
        case .shrRI64: shiftRight(UInt64.self, i)
        case .sarRI16: shiftArithmetically(UInt16.self, i)
        case .sarRI32: shiftArithmetically(UInt32.self, i)
        case .sarRI64: shiftArithmetically(UInt64.self, i)
        case .pushR64: try push64(reg64(i.rm))
        case .popR64: setReg64(i.rm, try pop64())
        case .jcc:
          if condition(i.opcode) { jump(rip &+ i.immediate, i.size) }
          return
        case .jmp:
          jump(rip &+ i.immediate, i.size)
          return
        case .jmpIndirect:
          try jumpIndirect(try loadRM(i, size: i.size), i.size)
          return
        case .callRelative:
          try call(rip &+ i.immediate, i.size)
          return
        case .callIndirect:
          try call(try loadRM(i, size: i.size), i.size)
          return
        case .ret:
          if i.size == 8 {
            let target = try load(UInt64.self, gpr[4])
            try jumpIndirect(target, 8)
            gpr[4] &+= 8
          } else {
            jump(try pop(i.size), i.size)
          }
          return
        case .setcc:
          let value: UInt8 = condition(i.opcode) ? 1 : 0
          if i.isRegister { setReg8(i.rm, value) } else { try storeOperand(value, i) }
        case .cmovR:
          // Without the condition a 32-bit destination is still cleared above.
          let value = condition(i.opcode) ? i.rm : i.reg
          setReg(i.reg, size: i.size, reg(value, size: i.size))
        case .cmovM:
          let value = try loadOperand(size: i.size, i)
          setReg(i.reg, size: i.size, condition(i.opcode) ? value : reg(i.reg, size: i.size))
        case .nop: break
        case .vector: try executeVector(i)
        case .x87, .fwait: try executeX87(i)
        default:
          if i.opNumber < Op.movFromSegment.rawValue {
            try executeRare(i)
            if i.endsBlock { return }
          } else if i.op == .save {
            try executeSave(i)
          } else {
            leavesBlock = true
            try executeSystem(i)
            return
          }
        }
      } catch {
        if !error.isTrap { rip &-= UInt64(i.length) }
        throw error.isAddress && isStackAccess(i) ? .stack() : error
      }
    } while !leavesBlock
  }
}

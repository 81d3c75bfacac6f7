// npm install solc@0.8.37 && node compile.js makes WBTT.hex of WBTT.sol, bit for bit. It is
// compiled for Istanbul: BTTC is at Berlin, which has no PUSH0.
const solc=require('solc'),fs=require('fs');
const i={language:'Solidity',sources:{'WBTT.sol':{content:fs.readFileSync('WBTT.sol','utf8')}},settings:{evmVersion:'istanbul',optimizer:{enabled:true,runs:200},metadata:{bytecodeHash:'none',appendCBOR:false},outputSelection:{'*':{'*':['evm.bytecode.object','evm.methodIdentifiers']}}}};
const o=JSON.parse(solc.compile(JSON.stringify(i)));
for(const e of o.errors||[]) console.error(e.formattedMessage);
const c=o.contracts['WBTT.sol'].WBTT; console.error(c.evm.methodIdentifiers);
fs.writeFileSync('WBTT.hex',c.evm.bytecode.object+'\n');

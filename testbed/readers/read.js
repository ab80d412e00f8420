// Reads a TUF repository with tuf-js.
//
// usage: node read.js FOLDER METADATA_URL TARGETS_URL [TARGET...]
//
// FOLDER holds the first root as root.json. Prints the SHA-256 of each target.
'use strict';
const crypto = require('crypto');
const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');
const { Updater } = createRequire(process.cwd() + '/')('tuf-js');

async function main([folder, metadataBaseUrl, targetBaseUrl, ...targets]) {
  const metadataDir = path.join(folder, 'metadata');
  fs.mkdirSync(metadataDir, { recursive: true });
  if (!fs.existsSync(path.join(metadataDir, 'root.json'))) {
    fs.copyFileSync(path.join(folder, 'root.json'), path.join(metadataDir, 'root.json'));
  }
  const updater = new Updater({ metadataDir, metadataBaseUrl, targetDir: folder, targetBaseUrl });
  await updater.refresh();
  for (const name of targets) {
    const info = await updater.getTargetInfo(name);
    if (!info) throw new Error(`there is no target ${name}`);
    const file = await updater.downloadTarget(info);
    console.log(crypto.createHash('sha256').update(fs.readFileSync(file)).digest('hex'));
  }
}

main(process.argv.slice(2)).catch((err) => {
  console.error(String(err));
  process.exit(1);
});

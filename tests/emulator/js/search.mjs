// Pages through a data store with the SDK's paginator and prints what it met as JSON.
import { gunzipSync } from "node:zlib";
import {
  GetImageSetMetadataCommand,
  MedicalImagingClient,
  SearchImageSetsCommand,
  paginateSearchImageSets,
} from "@aws-sdk/client-medical-imaging";

const datastoreId = process.argv[2];
// The SDK has no variable for it: this is its own way to leave the host alone.
const client = new MedicalImagingClient({ disableHostPrefix: true });
const searchCriteria = {
  filters: [
    {
      operator: "BETWEEN",
      values: [{ updatedAt: new Date("2021-01-01T00:00:00Z") }, { updatedAt: new Date("2024-06-04") }],
    },
  ],
  sort: { sortField: "updatedAt", sortOrder: "ASC" },
};

const rows = [];
for await (const page of paginateSearchImageSets(
  { client, pageSize: 50 },
  { datastoreId, searchCriteria },
)) {
  rows.push(...page.imageSetsMetadataSummaries);
}

let refused = "";
try {
  await client.send(new SearchImageSetsCommand({ datastoreId, maxResults: 51 }));
} catch (error) {
  refused = error.name;
}

const { imageSetMetadataBlob } = await client.send(
  new GetImageSetMetadataCommand({ datastoreId, imageSetId: rows[0].imageSetId }),
);
const metadata = gunzipSync(await imageSetMetadataBlob.transformToByteArray()).toString();

console.log(
  JSON.stringify({
    ids: rows.map((row) => row.imageSetId),
    isDate: rows.every((row) => row.updatedAt instanceof Date),
    refused,
    metadata,
  }),
);
client.destroy();

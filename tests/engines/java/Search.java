import java.time.Instant;
import java.util.List;
import software.amazon.awssdk.core.client.config.SdkAdvancedClientOption;
import software.amazon.awssdk.core.exception.SdkServiceException;
import software.amazon.awssdk.services.medicalimaging.MedicalImagingClient;
import software.amazon.awssdk.services.medicalimaging.model.DICOMStudyDateAndTime;
import software.amazon.awssdk.services.medicalimaging.model.ImageSetsMetadataSummary;
import software.amazon.awssdk.services.medicalimaging.model.Operator;
import software.amazon.awssdk.services.medicalimaging.model.SearchByAttributeValue;
import software.amazon.awssdk.services.medicalimaging.model.SearchCriteria;
import software.amazon.awssdk.services.medicalimaging.model.SearchFilter;
import software.amazon.awssdk.services.medicalimaging.model.Sort;
import software.amazon.awssdk.services.medicalimaging.model.SortField;
import software.amazon.awssdk.services.medicalimaging.model.SortOrder;

/** Does the four searches of the page of SearchImageSets, and prints "name: id id id" for each. */
public final class Search {
    private static MedicalImagingClient client;
    private static String datastore;

    public static void main(String[] arguments) {
        datastore = arguments[0];
        String patient = arguments[1];
        String series = arguments[2];
        // The SDK has no variable for it: this is its own way to leave the host alone.
        client = MedicalImagingClient.builder()
            .overrideConfiguration(c -> c.putAdvancedOption(
                SdkAdvancedClientOption.DISABLE_HOST_PREFIX_INJECTION, true))
            .build();
        print("everything", SearchCriteria.builder().build());
        print("patient", criteria(equal(SearchByAttributeValue.fromDicomPatientId(patient))));
        print("studies", criteria(between(
            SearchByAttributeValue.fromDicomStudyDateAndTime(study("20240101", "000000.000")),
            SearchByAttributeValue.fromDicomStudyDateAndTime(study("20240331", "235959.999")))));
        print("created", criteria(between(
            SearchByAttributeValue.fromCreatedAt(Instant.parse("2024-03-01T00:00:00.123Z")),
            SearchByAttributeValue.fromCreatedAt(Instant.parse("2024-06-03T09:00:00Z")))));
        SearchCriteria updated = SearchCriteria.builder()
            .filters(
                equal(SearchByAttributeValue.fromDicomSeriesInstanceUID(series)),
                between(
                    SearchByAttributeValue.fromUpdatedAt(Instant.parse("2000-01-01T00:00:00Z")),
                    SearchByAttributeValue.fromUpdatedAt(Instant.parse("2030-01-01T00:00:00Z"))))
            .sort(Sort.builder().sortField(SortField.UPDATED_AT).sortOrder(SortOrder.ASC).build())
            .build();
        print("updated", updated);
        try {
            client.searchImageSets(r -> r.datastoreId(datastore).maxResults(51));
        } catch (SdkServiceException error) {
            System.out.println("refused: " + error.getClass().getSimpleName());
        }
        client.close();
    }

    private static void print(String name, SearchCriteria criteria) {
        StringBuilder line = new StringBuilder(name + ":");
        client.searchImageSetsPaginator(r -> r
                .datastoreId(datastore).maxResults(50).searchCriteria(criteria))
            .imageSetsMetadataSummaries()
            .forEach((ImageSetsMetadataSummary found) -> line.append(' ').append(found.imageSetId()));
        System.out.println(line);
    }

    private static SearchCriteria criteria(SearchFilter... filters) {
        return SearchCriteria.builder().filters(List.of(filters)).build();
    }

    private static SearchFilter equal(SearchByAttributeValue value) {
        return SearchFilter.builder().operator(Operator.EQUAL).values(value).build();
    }

    private static SearchFilter between(SearchByAttributeValue from, SearchByAttributeValue to) {
        return SearchFilter.builder().operator(Operator.BETWEEN).values(from, to).build();
    }

    private static DICOMStudyDateAndTime study(String date, String time) {
        return DICOMStudyDateAndTime.builder().dicomStudyDate(date).dicomStudyTime(time).build();
    }
}
